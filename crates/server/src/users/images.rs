//! Images: named, listed, and their names taken away. Only what `gleaner image import` built
//! gets a name: the file is read and compared with what its tree makes.

use super::body::{JsonBody, Path};
use super::views;
use crate::auth::{User, forbidden};
use crate::contents::{self, Content};
use crate::error::ApiError;
use crate::shared::{Shared, blocking};
use crate::wall;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use gleaner_api::{ImageView, NewImage};
use gleaner_image::ImageError;
use gleaner_model::{BlobRef, UserId};
use gleaner_store::{ImageRow, ServerRow};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest name, and longest note, in bytes.
const NAME_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 512;

/// Most images of a pool: a listing must stay readable.
const IMAGES_MAX: usize = 10_000;

fn view(row: &ImageRow, users: &BTreeMap<UserId, String>) -> ImageView {
    let user = users.get(&row.user);
    ImageView {
        id: row.name.clone(),
        name: row.name.clone(),
        state: "ready".to_owned(),
        digest: row.blob.digest,
        size: row.blob.size,
        created: views::time(row.created),
        user: user.map_or_else(|| row.user.to_string(), Clone::clone),
        note: row.note.clone(),
    }
}

async fn users(shared: &Shared) -> Result<BTreeMap<UserId, String>, ApiError> {
    Ok(shared.driver.read(|view| view.side.users.clone()).await?)
}

/// Images by name.
#[utoipa::path(get, path = "/api/v1/images", responses((status = 200, body = Vec<ImageView>)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    _user: User,
) -> Result<Json<Vec<ImageView>>, ApiError> {
    let users = users(&shared).await?;
    let rows = shared.images.rows();
    Ok(Json(rows.iter().map(|row| view(row, &users)).collect()))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    let first = name.chars().next();
    if name.len() > NAME_BYTES_MAX
        || !name.chars().all(plain)
        || !first.is_some_and(|c| c.is_ascii_alphanumeric())
        || name.starts_with("blake3:")
    {
        return Err(ApiError::bad(format!(
            "{name:?} cannot name an image: it takes up to {NAME_BYTES_MAX} letters, digits, and \
             the signs . _ - : behind the first"
        )));
    }
    Ok(())
}

/// Whoever made an image, or an admin, may put another in its place or take it away.
fn may_change(user: User, row: &ImageRow) -> Result<(), ApiError> {
    match row.user == user.id || user.admin {
        true => Ok(()),
        false => Err(forbidden(
            "this image is another user's; choose another name, or ask them or the pool's admin",
        )),
    }
}

/// Gives an uploaded image a name, in place of the one that had it.
#[utoipa::path(post, path = "/api/v1/images", responses((status = 201, body = ImageView), (status = 422)))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    user: User,
    JsonBody(new): JsonBody<NewImage>,
) -> Result<(StatusCode, Json<ImageView>), ApiError> {
    check_name(&new.name)?;
    if new.note.len() > NOTE_BYTES_MAX || new.note.chars().any(char::is_control) {
        return Err(ApiError::bad(format!(
            "a note takes up to {NOTE_BYTES_MAX} bytes on one line"
        )));
    }
    let _one = shared.image_names.lock().await;
    let known = shared.images.get(&new.name);
    if let Some(row) = &known {
        may_change(user, row)?;
    }
    if known.is_none() && shared.images.rows().len() >= IMAGES_MAX {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("there are {IMAGES_MAX} images already; `gleaner image remove` makes room"),
        ));
    }
    // Not swept before it has its name.
    let _pin = shared.blobs.pin(&new.digest);
    let worker = Arc::clone(&shared);
    let digest = new.digest;
    let size = blocking(move || believed(&worker, digest)).await??;
    let row = ImageRow {
        name: new.name,
        blob: BlobRef { digest, size },
        created: wall::now(),
        user: user.id,
        note: new.note,
    };
    let rows = vec![ServerRow::Image(row.clone())];
    shared.driver.rows(rows, None).await?;
    shared.images.learn(row.clone());
    let users = users(&shared).await?;
    Ok((StatusCode::CREATED, Json(view(&row, &users))))
}

/// The size of a blob that is an image of ours; blocks on the disk.
fn believed(shared: &Shared, digest: gleaner_model::Digest) -> Result<u64, ApiError> {
    let content = contents::find(shared.store.as_ref(), &shared.blobs, &digest)?;
    let Content::File(file, size) = content else {
        return Err(ApiError::bad("this is too small to be an image"));
    };
    match gleaner_image::open(file) {
        Ok(_) => Ok(size),
        Err(error @ ImageError::Io { .. }) => {
            tracing::error!(%error, "an uploaded image could not be read");
            Err(ApiError::crashed())
        }
        Err(error) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            error.to_string(),
        )),
    }
}

/// Takes an image's name away. Jobs that were submitted with it keep the file; it is swept when
/// nothing needs it any more.
#[utoipa::path(delete, path = "/api/v1/images/{name}", responses((status = 204), (status = 404)))]
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    user: User,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let _one = shared.image_names.lock().await;
    let row = shared.images.get(&name).ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no image {name:?}; `gleaner image list` lists them"
        ))
    })?;
    may_change(user, &row)?;
    let rows = vec![ServerRow::ImageGone(name.clone())];
    shared.driver.rows(rows, None).await?;
    shared.images.forget(&name);
    Ok(StatusCode::NO_CONTENT)
}
