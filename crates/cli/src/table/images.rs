//! Images by name.

use super::{Look, ago, table, text};
use gleaner_api::ImageView;
use gleaner_model::Bytes;

/// Characters of a digest that tell images apart at a glance; `--json` has all.
const DIGEST_CHARS: usize = 12;

/// The listing.
pub(crate) fn list(images: &[ImageView], look: Look) -> String {
    if images.is_empty() {
        return "no images yet; `gleaner image import NAME SOURCE` makes one\n".into();
    }
    let mut rows = table(look, &["IMAGE", "DIGEST", "SIZE", "AGE", "USER", "MADE OF"]);
    for image in images {
        let digest: String = image.digest.hex().chars().take(DIGEST_CHARS).collect();
        rows.add_row(vec![
            (&image.name).into(),
            digest.into(),
            Bytes(image.size).to_string().into(),
            ago(look, &image.created).into(),
            (&image.user).into(),
            comfy_table::Cell::new(&image.note),
        ]);
    }
    text(rows)
}
