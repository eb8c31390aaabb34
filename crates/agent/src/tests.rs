//! An agent against a fake host and a fake manager.
