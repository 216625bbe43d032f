//! The registry of devboxes. The server starts no machine: a devbox is a name, its bindings, and
//! the right to join once.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde::de::MapAccess;

use super::answer::{Answer, json};
use super::body::{NoFields, Write};
use super::connection::Connection;
use super::error::ApiError;
use super::json::{Field, Object, UniqueMap};
use super::query::{ListQuery, PathText};
use super::secrets::{warned, warning};
use crate::registry::{Caller, DevboxPage, DevboxStatus, DevboxView, NewDevbox, Registry};

/// The fields with which official clients start a machine.
const MACHINE_FIELDS: &[&str] = &[
    "blueprint_id",
    "blueprint_name",
    "code_mounts",
    "entrypoint",
    "environment_variables",
    "file_mounts",
    "launch_parameters",
    "mcp",
    "mounts",
    "snapshot_id",
    "tunnel",
];

#[derive(Default)]
pub(super) struct Registration(NewDevbox);

impl Object for Registration {
    const FIELDS: &'static [Field] = &[
        Field { name: "name", form: "a string", required: false },
        Field { name: "secrets", form: "an object of environment name: secret name or id", required: false },
        Field {
            name: "gateways",
            form: "an object of environment prefix: {\"gateway\": ..., \"secret\": ...}",
            required: false,
        },
        Field { name: "metadata", form: "an object of strings", required: false },
    ];
    const FOREIGN: (&'static [&'static str], &'static str) =
        (MACHINE_FIELDS, "this server registers devboxes and starts no machine");

    fn read<'de, A: MapAccess<'de>>(&mut self, field: usize, map: &mut A) -> Result<(), A::Error> {
        match field {
            0 => self.0.name = map.next_value()?,
            1 => self.0.secrets = map.next_value::<Option<UniqueMap<_>>>()?.map(|map| map.0),
            2 => self.0.gateways = map_or_empty(map)?,
            _ => self.0.metadata = map_or_empty(map)?,
        }
        Ok(())
    }
}

fn map_or_empty<'de, V, A>(map: &mut A) -> Result<BTreeMap<String, V>, A::Error>
where
    V: serde::Deserialize<'de>,
    A: MapAccess<'de>,
{
    Ok(map.next_value::<Option<UniqueMap<V>>>()?.map(|map| map.0).unwrap_or_default())
}

/// A devbox as official clients know it, with what this server adds.
#[derive(Debug, Serialize)]
pub(super) struct Devbox {
    #[serde(flatten)]
    view: DevboxView,
    /// A machine's; always empty.
    capabilities: [(); 0],
    /// A machine's; always empty.
    launch_parameters: BTreeMap<(), ()>,
    state_transitions: Vec<Transition>,
}

#[derive(Debug, Serialize)]
struct Transition {
    status: DevboxStatus,
    transition_time_ms: i64,
}

#[derive(Serialize)]
struct Registered<'a> {
    #[serde(flatten)]
    devbox: Devbox,
    join_token: &'a str,
}

#[derive(Serialize)]
struct Token<'a> {
    join_token: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct Devboxes {
    devboxes: Vec<Devbox>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_count: Option<u64>,
}

impl From<DevboxView> for Devbox {
    fn from(view: DevboxView) -> Self {
        let mut state_transitions =
            vec![Transition { status: DevboxStatus::Running, transition_time_ms: view.create_time_ms }];
        let end = view.end_time_ms;
        state_transitions
            .extend(end.map(|end| Transition { status: DevboxStatus::Shutdown, transition_time_ms: end }));
        Self { view, capabilities: [], launch_parameters: BTreeMap::new(), state_transitions }
    }
}

impl From<DevboxPage> for Devboxes {
    fn from(page: DevboxPage) -> Self {
        let devboxes = page.devboxes.into_iter().map(Devbox::from).collect();
        Self { devboxes, has_more: page.has_more, total_count: page.total_count }
    }
}

pub(super) async fn create(
    State(registry): State<Registry>,
    Extension(connection): Extension<Arc<Connection>>,
    Write { caller, body }: Write<Registration>,
) -> Result<Response, ApiError> {
    let (view, token) = registry.create_devbox(&caller, body.0).await?;
    let warning = warning(view.secrets.iter().flatten().map(|(env, _)| env.as_str()));
    // The answer holds a join token, and the connection its copy.
    connection.close_after_answer();
    let token = token.expose_token();
    let response = json(StatusCode::OK, &Registered { devbox: view.into(), join_token: &token });
    Ok(warned(warning, response))
}

pub(super) async fn list(
    State(registry): State<Registry>,
    Extension(caller): Extension<Arc<Caller>>,
    query: ListQuery,
) -> Result<Answer<Devboxes>, ApiError> {
    Ok(Answer(registry.list_devboxes(&caller, &query.into()).await?.into()))
}

pub(super) async fn get(
    State(registry): State<Registry>,
    Extension(caller): Extension<Arc<Caller>>,
    PathText(id): PathText,
) -> Result<Answer<Devbox>, ApiError> {
    Ok(Answer(registry.devbox(&caller, &id).await?.into()))
}

pub(super) async fn shutdown(
    State(registry): State<Registry>,
    PathText(id): PathText,
    Write { caller, .. }: Write<NoFields>,
) -> Result<Answer<Devbox>, ApiError> {
    Ok(Answer(registry.shutdown_devbox(&caller, &id).await?.into()))
}

pub(super) async fn join_token(
    State(registry): State<Registry>,
    Extension(connection): Extension<Arc<Connection>>,
    PathText(id): PathText,
    Write { caller, .. }: Write<NoFields>,
) -> Result<Response, ApiError> {
    let token = registry.new_join_token(&caller, &id).await?;
    // The answer holds a join token, and the connection its copy.
    connection.close_after_answer();
    let token = token.expose_token();
    Ok(json(StatusCode::OK, &Token { join_token: &token }))
}
