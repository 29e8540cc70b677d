"""Commands of the fleet: taken once, journalled before they are acknowledged, done, answered."""
