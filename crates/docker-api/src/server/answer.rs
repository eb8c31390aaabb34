//! Bodies of answers.

use crate::types::{Text, Written};
use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

/// What is answered, as JSON.
#[derive(Debug)]
pub(super) struct Answer<T>(pub(super) T);

impl<T: Written> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Text::of(&self.0)).into_response()
    }
}
