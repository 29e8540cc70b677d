"""Many devices on one machine: `edgeml simulate`.

Each simulated device has a key and a certificate of its own, by real enrolment, and says on the
wire what a real one says: signed hellos, states, telemetry and evidence over MQTT and HTTPS. It
verifies what the fleet signed, resolves the variant itself and downloads and verifies the bytes.
What it does not do is infer: how the model behaves is drawn from a model of its hardware class.

`population` says who the devices are and `behaviour` what they will measure (pure, drawn from a
seed); `device` is one device, `mqtt` and `http` its connections, `identities` what is kept of all
of them between two runs, `running` the whole.
"""
