"""What a device is (capabilities, target profiles, requirements) and how it runs a model."""
