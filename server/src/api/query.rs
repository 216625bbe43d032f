//! What a request says in its path and query.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::error::ApiError;

/// Items of a page where the caller does not say.
const DEFAULT_LIMIT: u32 = 20;
/// Most items of a page; asking for more is no mistake.
const MAX_LIMIT: u32 = 5_000;

/// The one parameter of a path, decoded: a name or an id.
pub(super) struct PathText(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        // What is not UTF-8 names nothing.
        path.map(|Path(text)| Self(text)).map_err(|_| {
            ApiError::new(StatusCode::NOT_FOUND, "not_found", "no name and no id has such bytes: send UTF-8")
        })
    }
}

/// Which part of a list the caller wants. Other parameters are passed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Most items to return.
    pub(super) limit: u32,
    /// The last item of the page before.
    pub(super) starting_after: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|_| {
            ApiError::invalid("invalid_query", "the query is not of the form name=value&name=value")
        })?;
        Self::from_pairs(pairs)
    }
}

impl ListQuery {
    fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut query = Self { limit: DEFAULT_LIMIT, starting_after: None };
        let mut has_limit = false;
        for (name, value) in pairs {
            match name.as_str() {
                "limit" if has_limit => return Err(invalid_limit()),
                "limit" => {
                    has_limit = true;
                    query.limit = parse_limit(&value)?;
                }
                "starting_after" if !value.is_empty() => query.starting_after = Some(value),
                _ => {}
            }
        }
        Ok(query)
    }
}

fn parse_limit(text: &str) -> Result<u32, ApiError> {
    if text.is_empty() {
        return Ok(DEFAULT_LIMIT);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid_limit());
    }
    // Digits that do not fit are a number larger than the maximum.
    match text.parse::<u32>().unwrap_or(u32::MAX) {
        0 => Err(invalid_limit()),
        limit => Ok(limit.min(MAX_LIMIT)),
    }
}

fn invalid_limit() -> ApiError {
    ApiError::invalid(
        "invalid_limit",
        "`limit` has to be one positive integer; more than 5000 is served as 5000",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(values: &[&str]) -> Option<u32> {
        let pairs = values.iter().map(|value| ("limit".to_owned(), (*value).to_owned())).collect();
        ListQuery::from_pairs(pairs).ok().map(|query| query.limit)
    }

    #[test]
    fn limits_are_served_within_their_bounds() {
        assert_eq!(limit(&[]), Some(20));
        assert_eq!(limit(&[""]), Some(20));
        assert_eq!(limit(&["1"]), Some(1));
        for large in ["5000", "5001", "2147483648", "99999999999999999999999"] {
            assert_eq!(limit(&[large]), Some(5_000), "{large}");
        }
    }

    #[test]
    fn what_is_no_positive_integer_is_refused() {
        for bad in ["0", "00", "-1", "+1", "1.0", "1e3", " 1", "ten", "null", "１"] {
            assert_eq!(limit(&[bad]), None, "{bad}");
        }
        assert_eq!(limit(&["1", "1"]), None);
    }
}
