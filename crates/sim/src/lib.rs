//! Fleets on virtual time: the real brains, seeded faults.
