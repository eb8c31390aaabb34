//! The log across restarts, crashes and damage.
