//! How a call carries the person it is made for.

use crate::control::PersonClaim;
use prost::Message as _;
use tonic::{
    Request, Status,
    metadata::{Binary, MetadataMap, MetadataValue},
    service::Interceptor,
};

/// Metadata with a [`PersonClaim`].
pub const PERSON_KEY: &str = "rswarm-person-bin";
/// Metadata with a [`crate::control::ForwardedCaller`].
pub const CALLER_KEY: &str = "rswarm-caller-bin";

/// Puts a person's claim on every call of a client. Never shown in logs: it may hold a token.
#[derive(Debug, Clone)]
pub struct PersonalClaim(Option<MetadataValue<Binary>>);

impl PersonalClaim {
    pub fn new(claim: &PersonClaim) -> Self {
        let mut value = MetadataValue::from_bytes(&claim.encode_to_vec());
        value.set_sensitive(true);
        Self(Some(value))
    }

    /// Returns one that says nothing: the calls are the node's own.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Returns the claim that a call carries, if any.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it cannot be read.
    pub fn of(metadata: &MetadataMap) -> Result<Option<PersonClaim>, Status> {
        let malformed = || Status::invalid_argument("malformed person claim");
        let Some(value) = metadata.get_bin(PERSON_KEY) else { return Ok(None) };
        let bytes = value.to_bytes().map_err(|_| malformed())?;
        PersonClaim::decode(bytes).map(Some).map_err(|_| malformed())
    }
}

impl Interceptor for PersonalClaim {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(claim) = &self.0 {
            request.metadata_mut().insert_bin(PERSON_KEY, claim.clone());
        }
        Ok(request)
    }
}
