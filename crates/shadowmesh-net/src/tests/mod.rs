//! Net in virtual time.
