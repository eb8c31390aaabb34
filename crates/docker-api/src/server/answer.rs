//! Bodies of answers.

use super::error::ApiError;
use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// What is answered, as JSON. (`axum::Json` writes each piece through a writer of its own, which takes a tenth of the time
/// of a long list.)
#[derive(Debug)]
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        answer(serde_json::to_vec(&self.0))
    }
}

fn answer(json: serde_json::Result<Vec<u8>>) -> Response {
    match json {
        Ok(json) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response(),
        Err(error) => {
            ApiError::internal(format!("an answer cannot be written as JSON: {error}")).into_response()
        }
    }
}
