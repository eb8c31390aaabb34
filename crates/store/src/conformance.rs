//! openraft's own suite on our log and state machine.
