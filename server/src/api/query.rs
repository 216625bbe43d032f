//! Parameters of a request's path and query.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::error::ApiError;
use crate::registry::{DevboxQuery, DevboxStatus};

/// Items of a page if the caller gives no limit.
const DEFAULT_LIMIT: u32 = 20;
/// The most items of a page; a larger limit is not an error.
const MAX_LIMIT: u32 = 5_000;

/// The one parameter of a path, decoded: a name or an id.
pub(super) struct PathText(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        // A path that is not UTF-8 matches no name.
        path.map(|Path(text)| Self(text)).map_err(|_| {
            ApiError::new(StatusCode::NOT_FOUND, "not_found", "no name and no id has such bytes: send UTF-8")
        })
    }
}

/// Filters and orders that other servers have and this one lacks: ignoring one would change the
/// meaning of the response. Any other unknown parameter is ignored.
const UNSUPPORTED: [&str; 12] = [
    "after",
    "before",
    "cursor",
    "ending_before",
    "filter",
    "metadata",
    "name",
    "offset",
    "order",
    "page",
    "search",
    "sort",
];

/// Statuses that machines of other servers have. No devbox here ever does, so the answer is an
/// empty list.
const FOREIGN_STATUSES: [&str; 6] =
    ["provisioning", "initializing", "suspending", "suspended", "resuming", "failure"];

/// The part of a list that the caller wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Most items to return.
    pub(super) limit: u32,
    /// The last item of the page before.
    pub(super) starting_after: Option<String>,
    /// Only devboxes of these statuses.
    status: Option<Vec<DevboxStatus>>,
    /// Whether to count the whole list.
    include_total_count: bool,
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
        let mut query =
            Self { limit: DEFAULT_LIMIT, starting_after: None, status: None, include_total_count: true };
        let mut has_limit = false;
        for (name, value) in pairs {
            match name.as_str() {
                "limit" if has_limit => return Err(invalid_limit()),
                "limit" => {
                    has_limit = true;
                    query.limit = parse_limit(&value)?;
                }
                "starting_after" if !value.is_empty() => query.starting_after = Some(value),
                "status" if !value.is_empty() => query.status = Some(parse_status(&value)?),
                "include_total_count" => query.include_total_count = parse_bool(&value)?,
                name => check_unsupported(name)?,
            }
        }
        Ok(query)
    }

    /// The same query of a list without a status.
    pub(super) fn without_filters(self) -> Result<Self, ApiError> {
        match self.status {
            None => Ok(self),
            Some(_) => Err(unsupported("status")),
        }
    }
}

impl From<ListQuery> for DevboxQuery {
    fn from(query: ListQuery) -> Self {
        let ListQuery { limit, starting_after, status, include_total_count } = query;
        Self { limit, starting_after, status, counted: include_total_count }
    }
}

fn parse_status(text: &str) -> Result<Vec<DevboxStatus>, ApiError> {
    match text {
        "running" => Ok(vec![DevboxStatus::Running]),
        "shutdown" => Ok(vec![DevboxStatus::Shutdown]),
        text if FOREIGN_STATUSES.contains(&text) => Ok(Vec::new()),
        _ => Err(ApiError::invalid("invalid_status", "`status` has to be running or shutdown")),
    }
}

fn parse_bool(text: &str) -> Result<bool, ApiError> {
    match text {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ApiError::invalid("invalid_query", "`include_total_count` has to be true or false")),
    }
}

fn check_unsupported(name: &str) -> Result<(), ApiError> {
    UNSUPPORTED.iter().find(|known| **known == name).map_or(Ok(()), |name| Err(unsupported(name)))
}

fn unsupported(name: &'static str) -> ApiError {
    ApiError::invalid("unsupported_query", format!("this list does not take `{name}`: leave it out"))
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

    fn pairs(pairs: &[(&str, &str)]) -> Result<ListQuery, ApiError> {
        ListQuery::from_pairs(
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        )
    }

    #[test]
    fn filters_are_taken_or_refused_by_name() {
        let query = pairs(&[("status", "running"), ("include_total_count", "false"), ("_", "1")]).unwrap();
        assert_eq!((query.status, query.include_total_count), (Some(vec![DevboxStatus::Running]), false));
        assert_eq!(pairs(&[("status", "suspended")]).unwrap().status, Some(Vec::new()));
        for (name, value) in
            [("status", "RUNNING"), ("include_total_count", "1"), ("order", "asc"), ("page", "2")]
        {
            assert!(pairs(&[(name, value)]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_limit_that_is_not_a_positive_integer_is_refused() {
        for bad in ["0", "00", "-1", "+1", "1.0", "1e3", " 1", "ten", "null", "１"] {
            assert_eq!(limit(&[bad]), None, "{bad}");
        }
        assert_eq!(limit(&["1", "1"]), None);
    }
}
