//! Images of the pool: listed, uploaded under a name, taken their name away.

use crate::blobs::{Source, upload};
use crate::http::{Client, path_segment};
use crate::{ClientError, Progress};
use gleaner_api::{ImageView, NewImage};
use gleaner_model::BlobRef;
use reqwest::Method;
use std::path::Path;

impl Client {
    /// All images.
    ///
    /// # Errors
    /// As every call.
    pub async fn images(&self) -> Result<Vec<ImageView>, ClientError> {
        self.get("images", &[]).await
    }

    /// Uploads an image and gives it a name, in place of the one that had it.
    ///
    /// # Errors
    /// As every call, and where the file cannot be read.
    pub async fn new_image(
        &self,
        name: &str,
        (file, blob): (&Path, BlobRef),
        note: &str,
        progress: &Progress,
    ) -> Result<ImageView, ClientError> {
        let source = [(blob, Source::File(file.to_owned()))].into();
        upload(self, &source, progress).await?;
        let new = NewImage {
            name: name.to_owned(),
            digest: blob.digest,
            note: note.to_owned(),
        };
        self.post("images", &new).await
    }

    /// Takes an image's name away.
    ///
    /// # Errors
    /// As every call.
    pub async fn remove_image(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("images/{}", path_segment(name));
        self.send(self.request(Method::DELETE, &path))
            .await
            .map(drop)
    }
}
