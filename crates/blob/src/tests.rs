//! The folder, on a real disk.

use super::*;
use std::io::Write as _;
use std::time::Duration;

fn folder() -> (tempfile::TempDir, Blobs) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
    (dir, blobs)
}

fn digest(content: &[u8]) -> Digest {
    Digest(*blake3::hash(content).as_bytes())
}

#[test]
fn what_goes_in_comes_out_once() {
    let (_dir, blobs) = folder();
    let contents: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; usize::from(n) * 100]).collect();
    for batch in [&contents[..3], &contents[..]] {
        let stored = blobs.put_many(batch).unwrap();
        for (blob, content) in stored.iter().zip(batch) {
            assert_eq!(blob.digest, digest(content));
            assert_eq!(&blobs.read(&blob.digest, 1 << 20).unwrap(), content);
        }
    }
    let all = blobs
        .sweep(Duration::ZERO, |_| Ok::<_, BlobError>(true))
        .unwrap();
    assert_eq!((all.kept, all.removed), (20, 0));
    let missing = digest(b"never sent");
    assert_eq!(blobs.size(&missing).unwrap(), None);
    assert!(matches!(blobs.open_blob(&missing), Err(BlobError::Missing(d)) if d == missing));
    let limit = blobs.read(&digest(&contents[19]), 10);
    assert!(matches!(limit, Err(BlobError::TooLarge { limit: 10 })));
}

#[test]
fn a_blob_that_the_disk_has_damaged_goes_and_can_be_sent_anew() {
    let (dir, blobs) = folder();
    let content = vec![7; 10_000];
    let wanted = digest(&content);
    assert!(!blobs.check(&wanted).unwrap());
    for damage in [&b""[..], b"short", &[8; 10_000]] {
        blobs.put_many(&[&content]).unwrap();
        assert!(blobs.check(&wanted).unwrap());
        let hex = wanted.hex();
        let path = dir.path().join("blobs").join(&hex[..2]).join(&hex);
        fs::remove_file(&path).unwrap();
        fs::write(&path, damage).unwrap();
        assert!(!blobs.check(&wanted).unwrap());
        assert_eq!(blobs.renew(&wanted).unwrap(), None);
    }
}

#[test]
fn a_flipped_byte_is_refused_and_nothing_stays() {
    let (_dir, blobs) = folder();
    let (mut content, wanted) = (vec![7; 100_000], digest(&[7; 100_000]));
    content[50_000] ^= 1;
    let mut upload = blobs.upload(&wanted, 0).unwrap();
    upload.write(&content).unwrap();
    let refused = upload.finish();
    assert!(matches!(refused, Err(BlobError::Mismatch { expected, .. }) if expected == wanted));
    assert_eq!(
        (blobs.size(&wanted).unwrap(), blobs.partial(&wanted)),
        (None, 0)
    );
}

#[test]
fn a_broken_upload_goes_on_where_it_stopped_even_after_a_restart() {
    let (dir, blobs) = folder();
    let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let wanted = digest(&content);
    let mut upload = blobs.upload(&wanted, 0).unwrap();
    upload.write(&content[..100_000]).unwrap();
    drop(upload);
    let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
    assert_eq!(blobs.partial(&wanted), 100_000);
    let beyond = blobs.upload(&wanted, 100_001);
    assert!(matches!(beyond, Err(BlobError::Offset { have: 100_000 })));
    // Resuming before the end forgets what lies behind.
    let mut upload = blobs.upload(&wanted, 90_000).unwrap();
    upload.write(&content[90_000..]).unwrap();
    assert_eq!(upload.finish().unwrap().size, 300_000);
    assert_eq!(blobs.read(&wanted, 1 << 20).unwrap(), content);
    assert_eq!(blobs.partial(&wanted), 0);
}

#[test]
fn many_uploads_of_one_blob_at_once_all_succeed() {
    let (_dir, blobs) = folder();
    let content = vec![3_u8; 1 << 20];
    let wanted = digest(&content);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut upload = blobs.upload(&wanted, 0).unwrap();
                for part in content.chunks(10_000) {
                    upload.write(part).unwrap();
                }
                assert_eq!(upload.finish().unwrap().digest, wanted);
            });
        }
    });
    assert_eq!(blobs.read(&wanted, 1 << 30).unwrap(), content);
    let left = fs::read_dir(&blobs.0.partial).unwrap().count();
    assert_eq!(left, 0, "parts are left over");
}

#[test]
fn the_sweep_keeps_what_is_needed_pinned_or_young() {
    let (_dir, blobs) = folder();
    let names = [&b"needed"[..], b"pinned", b"loose"];
    blobs.put_many(&names).unwrap();
    let mut half = blobs.upload(&digest(b"half"), 0).unwrap();
    half.write(b"ha").unwrap();
    let needed = |found: &Digest| Ok::<_, BlobError>(*found == digest(b"needed"));
    let young = blobs.sweep(Duration::from_secs(3600), needed).unwrap();
    assert_eq!((young.kept, young.removed), (4, 0));
    let pin = blobs.pin(&digest(b"pinned"));
    let swept = blobs.sweep(Duration::ZERO, needed).unwrap();
    assert_eq!((swept.kept, swept.removed, swept.bytes), (3, 1, 5));
    drop((pin, half));
    let swept = blobs.sweep(Duration::ZERO, needed).unwrap();
    assert_eq!((swept.kept, swept.removed), (1, 2));
    assert_eq!(blobs.renew(&digest(b"needed")).unwrap(), Some(6));
    assert_eq!(blobs.renew(&digest(b"loose")).unwrap(), None);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (_dir, blobs) = folder();
    let mut writer = blobs.writer().unwrap();
    writer.write(b"half a mer").unwrap();
    drop(writer);
    let mut writer = blobs.writer().unwrap();
    writer.write(b"whole").unwrap();
    assert_eq!(writer.finish().unwrap().digest, digest(b"whole"));
    assert_eq!(fs::read_dir(&blobs.0.partial).unwrap().count(), 0);
}

/// Needs a file system of a known small size, which only root can make.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let run = std::process::Command::new(args[0])
            .args(&args[1..])
            .output();
        run.is_ok_and(|done| done.status.success())
    };
    let path = dir.path().to_str().unwrap();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path]) {
        // Not root: the error's kind is still the right one.
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(disk("write", dir.path())(full), BlobError::Full));
        return;
    }
    let filled = std::panic::catch_unwind(|| {
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        let mut ballast = File::create(dir.path().join("ballast")).unwrap();
        ballast.write_all(&[1; 128 << 10]).unwrap();
        let content = vec![9; 192 << 10];
        let wanted = digest(&content);
        let mut upload = blobs.upload(&wanted, 0).unwrap();
        assert!(matches!(upload.write(&content), Err(BlobError::Full)));
        drop(upload);
        assert!(matches!(blobs.put_many(&[&content]), Err(BlobError::Full)));
        drop(ballast);
        fs::remove_file(dir.path().join("ballast")).unwrap();
        let have = blobs.partial(&wanted);
        let mut upload = blobs.upload(&wanted, have).unwrap();
        upload
            .write(&content[usize::try_from(have).unwrap()..])
            .unwrap();
        assert_eq!(upload.finish().unwrap().digest, wanted);
    });
    assert!(mount(&["umount", path]));
    filled.unwrap();
}
