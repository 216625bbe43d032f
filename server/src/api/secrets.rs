//! Secrets, by name and by id. The API accepts values and never returns one.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use devbox_secrets_proto::guarded;
use devbox_secrets_proto::secret::SecretBytes;
use serde::de::MapAccess;

use super::answer::Answer;
use super::body::{NoFields, Write};
use super::error::ApiError;
use super::json::{Field, Object, SecretText};
use super::query::{ListQuery, PathText};
use crate::registry::{Caller, Registry, SecretPage, SecretSelector, SecretView};

type Asked<T> = Result<Answer<T>, ApiError>;
type By = Extension<Arc<Caller>>;

const VALUE: Field = Field { name: "value", form: "a string", required: true };

#[derive(Default)]
pub(super) struct NewSecret {
    name: String,
    value: SecretText,
}

impl Object for NewSecret {
    const FIELDS: &'static [Field] = &[Field { name: "name", form: "a string", required: true }, VALUE];

    fn read<'de, A: MapAccess<'de>>(&mut self, field: usize, map: &mut A) -> Result<(), A::Error> {
        match field {
            0 => self.name = map.next_value()?,
            _ => self.value = map.next_value()?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct NewValue {
    value: SecretText,
}

impl Object for NewValue {
    const FIELDS: &'static [Field] = &[VALUE];

    fn read<'de, A: MapAccess<'de>>(&mut self, _: usize, map: &mut A) -> Result<(), A::Error> {
        self.value = map.next_value()?;
        Ok(())
    }
}

/// Carries a warning if a secret is stored or bound under a guarded name.
const WARNING: HeaderName = HeaderName::from_static("x-devbox-secrets-warning");

/// A secret whose value was written.
pub(super) struct Stored(SecretView);

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let warning = warning([&*self.0.name]);
        warned(warning, Answer(self.0).into_response())
    }
}

/// The warning for the first guarded one of these names, which is logged; `None` if no name is guarded.
pub(super) fn warning<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<HeaderValue> {
    let guarded = |name: &'a str| guarded::family_of(name.as_bytes()).map(|family| (name, family));
    let (name, family) = names.into_iter().find_map(guarded)?;
    tracing::warn!(name, reason = family.reason, source = family.source, "a secret has a guarded name");
    let text =
        format!("guarded name: {}; a devbox injects it only if a rule names it exactly", family.reason);
    HeaderValue::try_from(text).ok()
}

pub(super) fn warned(warning: Option<HeaderValue>, mut response: Response) -> Response {
    if let Some(warning) = warning {
        response.headers_mut().insert(WARNING, warning);
    }
    response
}

pub(super) async fn create(
    State(registry): State<Registry>,
    Write { caller, body }: Write<NewSecret>,
) -> Result<Stored, ApiError> {
    Ok(Stored(registry.create_secret(&caller, &body.name, body.value.0).await?))
}

pub(super) async fn list(
    State(registry): State<Registry>,
    Extension(caller): By,
    query: ListQuery,
) -> Asked<SecretPage> {
    let query = query.without_filters()?;
    Ok(Answer(registry.list_secrets(&caller, query.limit, query.starting_after.as_deref()).await?))
}

pub(super) async fn get_by_name(
    State(registry): State<Registry>,
    Extension(caller): By,
    PathText(name): PathText,
) -> Asked<SecretView> {
    Ok(Answer(registry.secret(&caller, SecretSelector::Name(&name)).await?))
}

pub(super) async fn get_by_id(
    State(registry): State<Registry>,
    Extension(caller): By,
    PathText(id): PathText,
) -> Asked<SecretView> {
    Ok(Answer(registry.secret(&caller, SecretSelector::Id(&id)).await?))
}

pub(super) async fn update_by_name(
    State(registry): State<Registry>,
    PathText(name): PathText,
    Write { caller, body }: Write<NewValue>,
) -> Result<Stored, ApiError> {
    update(&registry, &caller, SecretSelector::Name(&name), body.value.0).await
}

pub(super) async fn update_by_id(
    State(registry): State<Registry>,
    PathText(id): PathText,
    Write { caller, body }: Write<NewValue>,
) -> Result<Stored, ApiError> {
    update(&registry, &caller, SecretSelector::Id(&id), body.value.0).await
}

pub(super) async fn delete_by_name(
    State(registry): State<Registry>,
    PathText(name): PathText,
    Write { caller, .. }: Write<NoFields>,
) -> Asked<SecretView> {
    delete(&registry, &caller, SecretSelector::Name(&name)).await
}

pub(super) async fn delete_by_id(
    State(registry): State<Registry>,
    PathText(id): PathText,
    Write { caller, .. }: Write<NoFields>,
) -> Asked<SecretView> {
    delete(&registry, &caller, SecretSelector::Id(&id)).await
}

pub(super) async fn delete_the_one_named_id(
    State(registry): State<Registry>,
    Write { caller, .. }: Write<NoFields>,
) -> Asked<SecretView> {
    delete(&registry, &caller, SecretSelector::Name("id")).await
}

async fn update(
    registry: &Registry,
    caller: &Caller,
    selector: SecretSelector<'_>,
    value: SecretBytes,
) -> Result<Stored, ApiError> {
    Ok(Stored(registry.update_secret(caller, selector, value).await?))
}

async fn delete(registry: &Registry, caller: &Caller, selector: SecretSelector<'_>) -> Asked<SecretView> {
    Ok(Answer(registry.delete_secret(caller, selector).await?))
}
