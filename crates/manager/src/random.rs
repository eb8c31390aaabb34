//! New ids.

use tonic::Status;

/// Returns 128 random bits: a new id.
///
/// # Errors
/// The system has none to give.
pub(crate) fn random_id() -> Result<u128, Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Status::internal(format!("no randomness: {e}")))?;
    Ok(u128::from_be_bytes(bytes))
}
