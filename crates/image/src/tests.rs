//! What sources become: kinds, layers, hostile archives, one file per tree.

use crate::{BYTES_MAX, Imported, Tree, What, import, open};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::{Builder, EntryType, Header};

type Tar = Builder<Vec<u8>>;

/// Adds an entry whatever its name; the crate's own way refuses what is hostile.
fn add(tar: &mut Tar, kind: EntryType, name: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o4711);
    header.set_mtime(1_600_000_000);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn file(tar: &mut Tar, name: &str, content: &[u8]) {
    add(tar, EntryType::Regular, name, "", content);
}

fn link(tar: &mut Tar, name: &str, target: &str) {
    add(tar, EntryType::Symlink, name, target, b"");
}

fn tar(fill: impl FnOnce(&mut Tar)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    fill(&mut tar);
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    // Two frames: what parallel compressors write.
    let (one, two) = bytes.split_at(bytes.len() / 2);
    let mut all = compress_to_vec(one, CompressionLevel::Fastest);
    all.extend(compress_to_vec(two, CompressionLevel::Fastest));
    all
}

fn import_bytes(bytes: &[u8]) -> Result<Imported, String> {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::write(&source, bytes).unwrap();
    import(&source, BYTES_MAX).map_err(|error| error.to_string())
}

fn written(tree: &Tree) -> (File, [u8; 32]) {
    let mut file = tempfile::tempfile().unwrap();
    let (size, digest) = tree.write(&mut file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    (file, digest)
}

/// Everything that the source brought, as lines.
fn listing(tree: &Tree) -> Vec<String> {
    let ours = [
        "dev", "proc", "run", "scratch", "sys", ".outside", "tmp", "var", "home", "etc",
    ];
    let mut lines = Vec::new();
    for (name, id) in tree.walk() {
        let name = String::from_utf8_lossy(&name).into_owned();
        let made = name.starts_with("etc/") || name.starts_with("var/tmp");
        if ours.contains(&name.as_str()) || made {
            continue;
        }
        lines.push(match &tree.node(id).unwrap().what {
            What::Dir(_) => format!("{name}/"),
            What::Link(target) => format!("{name} -> {}", String::from_utf8_lossy(target)),
            What::File { content, program } => {
                let mut bytes = Vec::new();
                content.copy((0, content.len()), 4096, &mut bytes).unwrap();
                let sign = if *program { "*" } else { "" };
                format!("{name}{sign} = {}", String::from_utf8_lossy(&bytes))
            }
        });
    }
    lines
}

/// Two layers with everything that changes: whiteouts, opaque directories, links, replacements.
fn layers() -> [Vec<u8>; 2] {
    let one = tar(|tar| {
        add(tar, EntryType::Directory, "usr/", "", b"");
        file(tar, "usr/bin/prog", b"#!");
        file(tar, "usr/lib/gone", b"1");
        file(tar, "opt/a/old", b"2");
        file(tar, "opt/a/b/old", b"2");
        file(tar, "opt/kept", b"3");
        file(tar, "was-file", b"4");
        file(tar, "was-dir/inside", b"5");
        link(tar, "bin", "usr/bin");
        add(tar, EntryType::Link, "usr/bin/same", "usr/bin/prog", b"");
        add(tar, EntryType::Char, "dev/null", "", b"");
    });
    let two = tar(|tar| {
        file(tar, "usr/lib/.wh.gone", b"");
        file(tar, "usr/lib/.wh.never-was", b"");
        file(tar, "opt/a/new", b"6");
        file(tar, "opt/a/.wh..wh..opq", b"");
        file(tar, "opt/a/b/newer", b"7");
        file(tar, "bin/tool", b"8");
        file(tar, "was-file/now-dir", b"9");
        file(tar, "was-dir", b"now file");
    });
    // A file cannot have anything below it until it is taken away.
    let gone = tar(|tar| file(tar, ".wh.was-file", b""));
    let two = [&gone[..512], &two].concat();
    [one, two]
}

const LAYERED: [&str; 16] = [
    "bin -> usr/bin",
    "opt/",
    "opt/a/",
    "opt/a/b/",
    "opt/a/b/newer* = 7",
    "opt/a/new* = 6",
    "opt/kept* = 3",
    "usr/",
    "usr/bin/",
    "usr/bin/prog* = #!",
    "usr/bin/same* = #!",
    "usr/bin/tool* = 8",
    "usr/lib/",
    "was-dir* = now file",
    "was-file/",
    "was-file/now-dir* = 9",
];

fn sha(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same image as files of an OCI layout, by name.
fn oci(layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut blob = |bytes: Vec<u8>| {
        let digest = sha(&bytes);
        let size = bytes.len();
        files.push((format!("blobs/sha256/{digest}"), bytes));
        serde_json::json!({ "digest": format!("sha256:{digest}"), "size": size })
    };
    let config = blob(br#"{"config":{"Env":["PATH=/opt/conda/bin:/usr/bin","A=b"]}}"#.to_vec());
    let layers: Vec<_> = layers.iter().map(|layer| blob(layer.clone())).collect();
    let manifest = serde_json::json!({ "config": config, "layers": layers });
    let mut here = blob(serde_json::to_vec(&manifest).unwrap());
    let arch = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    here["platform"] = serde_json::json!({ "os": "linux", "architecture": arch });
    let mut other = here.clone();
    other["platform"] = serde_json::json!({ "os": "unknown", "architecture": "unknown" });
    let inner =
        blob(serde_json::to_vec(&serde_json::json!({ "manifests": [other, here] })).unwrap());
    let index = serde_json::json!({ "manifests": [inner] });
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    files.push((
        "oci-layout".into(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    ));
    files
}

fn as_tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    tar(|tar| {
        for (name, content) in files {
            file(tar, name, content);
        }
    })
}

fn lay_out(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[test]
fn layers_are_applied_whatever_they_come_in() {
    let [one, two] = layers();
    let plain = [one.clone(), two.clone()];
    let packed = [gzip(&one), zstd(&two)];
    let docker = |layers: &[Vec<u8>; 2]| {
        let manifest =
            r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["a/layer.tar","b.tar"]}]"#;
        tar(|tar| {
            file(tar, "manifest.json", manifest.as_bytes());
            file(tar, "c.json", &described(&plain));
            // Older archives share equal layers by links.
            link(tar, "a/layer.tar", "../z/layer.tar");
            file(tar, "z/layer.tar", &layers[0]);
            file(tar, "b.tar", &layers[1]);
        })
    };
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path(), &oci(&packed));
    let all = [
        ("OCI layout", import(dir.path(), BYTES_MAX).unwrap()),
        ("OCI layout", import_bytes(&as_tar(&oci(&plain))).unwrap()),
        (
            "OCI layout",
            import_bytes(&gzip(&as_tar(&oci(&plain)))).unwrap(),
        ),
        ("docker-archive", import_bytes(&docker(&plain)).unwrap()),
        (
            "docker-archive",
            import_bytes(&zstd(&docker(&packed))).unwrap(),
        ),
    ];
    let digests: Vec<_> = all
        .iter()
        .map(|(kind, found)| {
            assert_eq!(found.kind, *kind);
            assert_eq!(listing(&found.tree), LAYERED, "{kind}");
            assert!(
                found.notes.iter().any(|note| note.contains("1 devices")),
                "{:?}",
                found.notes
            );
            let hint = found
                .notes
                .iter()
                .any(|note| note.contains("--env PATH=/opt/conda/bin"));
            assert_eq!(hint, *kind == "OCI layout", "{:?}", found.notes);
            written(&found.tree).1
        })
        .collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
}

/// What `docker save` says of an image with these layers.
fn described(layers: &[Vec<u8>]) -> Vec<u8> {
    let digests = layers.iter().map(|layer| format!("sha256:{}", sha(layer)));
    let digests: Vec<String> = digests.collect();
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": digests });
    serde_json::to_vec(&serde_json::json!({ "rootfs": rootfs })).unwrap()
}

#[test]
fn a_layer_that_is_not_the_one_described_is_refused() {
    let [one, two] = layers();
    let manifest = br#"[{"Config":"c.json","Layers":["one.tar","two.tar"]}]"#;
    let saved = |layers: [&[u8]; 2]| {
        tar(|tar| {
            file(tar, "manifest.json", manifest);
            file(tar, "c.json", &described(&[one.clone(), two.clone()]));
            file(tar, "one.tar", layers[0]);
            file(tar, "two.tar", layers[1]);
        })
    };
    import_bytes(&saved([&one, &gzip(&two)])).unwrap();
    let error = import_bytes(&saved([&one, &one])).unwrap_err();
    assert!(error.contains("layer two.tar has other content"), "{error}");
}

/// As builders of layers that can be fetched in parts, and parallel compressors, write them.
#[test]
fn frames_of_zstd_that_hold_nothing_of_a_layer_are_passed_over() {
    let plain = tar(|tar| file(tar, "a", &[7; 9000]));
    let skipped = |low: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap();
        let head = [&[0x50 | low, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes()];
        [&head.concat()[..], content].concat()
    };
    let listed = [
        &zstd(&plain)[..],
        &skipped(0, b"a list of parts"),
        &skipped(15, b""),
    ]
    .concat();
    let parallel = [&skipped(0, &[1, 0, 0, 0])[..], &zstd(&plain)].concat();
    for packed in [listed, parallel] {
        let found = import_bytes(&packed).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(listing(&found.tree).len(), 1);
    }
}

#[test]
fn a_byte_that_was_changed_in_a_compressed_archive_is_found() {
    // Bytes that no compressor makes smaller are kept as they are, so that only a sum tells.
    let mut noise = Vec::new();
    while noise.len() < 64 << 10 {
        noise.extend(blake3::hash(&noise).as_bytes());
    }
    let plain = tar(|tar| file(tar, "noise", &noise));
    for mut packed in [gzip(&plain), zstd(&plain)] {
        let at = packed.len() / 2;
        packed[at] ^= 1;
        let error = import_bytes(&packed).unwrap_err();
        assert!(error.contains("is damaged"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_an_image_is_said() {
    let [one, two] = layers();
    let mut altered = oci(&[one, two]);
    altered[1].1[100] ^= 1;
    let missing: Vec<_> = altered
        .iter()
        .filter(|(name, _)| name.contains("json"))
        .cloned()
        .collect();
    let cases = [
        (as_tar(&altered), "other content than its name says"),
        (
            as_tar(&[&missing[..], &[("oci-layout".into(), b"{}".to_vec())]].concat()),
            "lacks blobs",
        ),
        (b"no archive at all".repeat(100), "no tar archive"),
        (Vec::new(), "neither a directory nor"),
        (b"\xfd7zXZ\0...........".to_vec(), "xz -d"),
        (
            gzip(&tar(|tar| file(tar, "a", b"b")))[..30].to_vec(),
            "damaged",
        ),
        (
            tar(|tar| file(tar, "a", &[7; 9000]))[..4096].to_vec(),
            "cut short",
        ),
    ];
    for (bytes, text) in cases {
        let error = import_bytes(&bytes).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

/// Archives of a few entries each (kind, name, target), the entry that is refused, and why.
type Hostile = (
    &'static [(char, &'static str, &'static str)],
    &'static str,
    &'static str,
);

const HOSTILE: [Hostile; 10] = [
    (&[('f', "/etc/passwd", "")], "/etc/passwd", "absolute"),
    (&[('f', "a/../../x", "")], "a/../../x", "`..`"),
    (
        &[('l', "out", "../../etc"), ('f', "out/x", "")],
        "out/x",
        "leads out of the image",
    ),
    (
        &[('l', "a", "b"), ('l', "b", "a"), ('f', "a/x", "")],
        "a/x",
        "round in circles",
    ),
    (&[('f', "f", ""), ('f', "f/x", "")], "f/x", "below a file"),
    (
        &[('h', "h", "etc/shadow")],
        "h",
        "not in the archive before",
    ),
    (&[('h', "h", "../../etc/shadow")], "h", "`..`"),
    (&[('h', "h", "/etc/shadow")], "h", "absolute"),
    (&[('f', "d/x", ""), ('h', "h", "d")], "h", "is a directory"),
    (&[('b', "etc/disk", "")], "etc/disk", "is a device"),
];

#[test]
fn hostile_archives_are_refused_with_the_entry_named() {
    for (entries, name, text) in HOSTILE {
        let archive = tar(|tar| {
            for (kind, name, target) in entries {
                let kind = match kind {
                    'f' => EntryType::Regular,
                    'l' => EntryType::Symlink,
                    'h' => EntryType::Link,
                    _ => EntryType::Block,
                };
                add(tar, kind, name, target, b"");
            }
        });
        let error = import_bytes(&archive).unwrap_err();
        assert!(
            error.starts_with(&format!("{name}: ")) && error.contains(text),
            "{error}"
        );
    }
    let long = format!("d{}", "/d".repeat(40));
    // Links that stay inside lead where they lead in the image.
    let found = import_bytes(&tar(|tar| {
        link(tar, "lib", "/usr/lib");
        file(tar, "usr/lib/one", b"1");
        file(tar, "lib/two", b"2");
        file(tar, &long, b"deep");
    }));
    let lines = listing(&found.unwrap().tree);
    assert!(lines.contains(&"usr/lib/two* = 2".to_owned()), "{lines:?}");
}

#[test]
fn an_archive_of_nothing_that_becomes_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("bomb.tar.gz");
    let bomb = gzip(&tar(|tar| file(tar, "zeros", &vec![0; 8 << 20])));
    assert!(bomb.len() < 64 << 10);
    fs::write(&source, &bomb).unwrap();
    let error = import(&source, 4 << 20).unwrap_err().to_string();
    assert!(error.contains("--max-size"), "{error}");
    // Names for one content count as often as they are.
    let many = tar(|tar| (0..5).for_each(|at| file(tar, &format!("f{at}"), &vec![0; 1 << 20])));
    fs::write(&source, many).unwrap();
    let error = import(&source, 4 << 20).unwrap_err().to_string();
    assert!(error.starts_with("f4: does not fit"), "{error}");
}

/// An entry whose name comes before it, as GNU writes long ones.
fn long_name(tar: &mut Tar, name: &[u8]) {
    add(tar, EntryType::GNULongName, "././@LongLink", "", name);
    file(tar, "short", b"1");
}

#[test]
fn names_that_no_system_has_fill_no_memory() {
    let long = tar(|tar| long_name(tar, &[b'n'; 4000]));
    let error = import_bytes(&long).unwrap_err();
    assert!(error.contains("a name of more than 255 bytes"), "{error}");
    let longer = tar(|tar| long_name(tar, &[b'n'; 5000]));
    let error = import_bytes(&gzip(&longer)).unwrap_err();
    assert!(
        error.contains("more than 4095 bytes") && error.len() < 200,
        "{error}"
    );
    let bomb = gzip(&tar(|tar| long_name(tar, &vec![b'n'; 8 << 20])));
    assert!(bomb.len() < 64 << 10);
    let error = import_bytes(&bomb).unwrap_err();
    assert!(error.contains("longer than 1 MiB"), "{error}");
    // What is bounded is each entry's own.
    let many = tar(|tar| {
        for at in 0..300 {
            let name = format!("d{at}/{}", ["n".repeat(250).as_str(); 15].join("/"));
            long_name(tar, name.as_bytes());
        }
    });
    assert!(many.len() > 1 << 20);
    import_bytes(&many).unwrap();
}

/// GNU tar and bsdtar put a list of parts into the place of such a file, under another name.
#[test]
fn a_file_with_holes_is_refused_in_every_format() {
    let described = |name: &str| {
        tar(|tar| {
            let words = [
                ("GNU.sparse.major", &b"1"[..]),
                ("GNU.sparse.name", b"lastlog"),
            ];
            tar.append_pax_extensions(words).unwrap();
            file(tar, name, b"1\n0\n4096\n");
        })
    };
    let cases = [
        described("GNUSparseFile.0/lastlog"),
        tar(|tar| {
            let mut header = Header::new_gnu();
            header.set_path("lastlog").unwrap();
            header.set_entry_type(EntryType::GNUSparse);
            header.set_size(0);
            header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
            header.set_cksum();
            tar.append(&header, &b""[..]).unwrap();
        }),
    ];
    for archive in cases {
        let error = import_bytes(&archive).unwrap_err();
        assert!(error.contains("lastlog: is stored with holes"), "{error}");
    }
    // As the tar of this PC does it.
    let dir = tempfile::tempdir().unwrap();
    let (holes, archive) = (dir.path().join("lastlog"), dir.path().join("a.tar"));
    File::create(&holes).unwrap().set_len(8 << 20).unwrap();
    let mut call = Command::new("tar");
    call.args(["--sparse", "--format=pax", "-cf"]).arg(&archive);
    call.arg("-C").arg(dir.path()).arg("lastlog");
    assert!(call.status().unwrap().success());
    let error = import(&archive, BYTES_MAX).unwrap_err().to_string();
    assert!(error.contains("is stored with holes"), "{error}");
    let other = tar(|tar| {
        tar.append_pax_extensions([("SCHILY.xattr.user.a", &b"GNU.sparse.major"[..])])
            .unwrap();
        file(tar, "whole", b"1");
    });
    import_bytes(&other).unwrap();
}

/// A directory with everything that has a place in the layout of its own.
fn directory(dir: &Path) -> PathBuf {
    let top = dir.join("root");
    for below in ["bin", "empty", "many", "proc/1"] {
        fs::create_dir_all(top.join(below)).unwrap();
    }
    // Sizes around what fits behind an inode, and around blocks.
    for size in [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 70_000] {
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        fs::write(top.join(format!("bin/{size}")), bytes).unwrap();
    }
    // Directories of several blocks, the last of them full and not.
    for at in 0..700 {
        fs::write(top.join(format!("many/{}{at}", "n".repeat(at % 60))), b"").unwrap();
    }
    fs::set_permissions(top.join("bin/1"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(top.join("bin/70000"), top.join("twin")).unwrap();
    symlink("bin/1", top.join("!first")).unwrap();
    symlink("x".repeat(4000), top.join("long")).unwrap();
    for path in ["bin/1", "bin/4033"] {
        let file = File::options().append(true).open(top.join(path)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890))
            .unwrap();
    }
    top
}

#[test]
fn a_tree_is_one_file_and_comes_back_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let top = directory(dir.path());
    let first = import(&top, BYTES_MAX).unwrap();
    let (image, digest) = written(&first.tree);
    assert_eq!(written(&import(&top, BYTES_MAX).unwrap().tree).1, digest);
    // A copy with the same times, made in another order, is the same image.
    let copy = dir.path().join("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&top, &copy])
        .status()
        .unwrap();
    assert!(copied.success());
    assert_eq!(written(&import(&copy, BYTES_MAX).unwrap().tree).1, digest);

    let again = open(image.try_clone().unwrap()).unwrap();
    assert_eq!(listing(&again), listing(&first.tree));
    assert_eq!(written(&again).1, digest);
    let unpacked = dir.path().join("unpacked");
    again.unpack(&unpacked).unwrap();
    let pair = [top.join("bin"), unpacked.join("bin")];
    let compared = Command::new("diff").arg("-r").args(pair).status().unwrap();
    assert!(compared.success());
    let meta = fs::metadata(unpacked.join("bin/1")).unwrap();
    assert_eq!(
        meta.permissions().mode() & 0o7777,
        0o755,
        "no set-user-id bit is left"
    );
    let age = meta
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(age.as_secs(), 1_234_567_890);
    assert!(
        fs::read_dir(unpacked.join("proc"))
            .unwrap()
            .next()
            .is_none()
    );
    assert_eq!(
        fs::read_link(unpacked.join("tmp")).unwrap(),
        Path::new("/scratch/.tmp")
    );
    let passwd = fs::read_to_string(unpacked.join("etc/passwd")).unwrap();
    assert!(passwd.contains("task1000:x:1000:"));
}

#[test]
fn the_tools_of_erofs_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let tree = import(&directory(dir.path()), BYTES_MAX).unwrap().tree;
    let path = dir.path().join("image");
    tree.write(&mut File::create(&path).unwrap()).unwrap();
    // Where the tools are installed: the kernel's own word comes from the engines' tests.
    let Ok(checked) = Command::new("fsck.erofs").arg(&path).output() else {
        return;
    };
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
}

#[test]
fn every_changed_byte_that_a_kernel_would_read_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("root");
    fs::create_dir(&top).unwrap();
    fs::write(top.join("a"), [9; 5000]).unwrap();
    symlink("a", top.join("l")).unwrap();
    let tree = import(&top, BYTES_MAX).unwrap().tree;
    let (image, _) = written(&tree);
    let size = image.metadata().unwrap().len();
    let content = size - 4096..size;
    let mut byte = [0];
    let mut believed = 0_u32;
    for at in (0..size).filter(|at| !content.contains(at)) {
        image.read_exact_at(&mut byte, at).unwrap();
        image.write_all_at(&[byte[0] ^ 0x11], at).unwrap();
        // What is left is another image of ours: another time, another byte of a file.
        if let Ok(other) = open(image.try_clone().unwrap()) {
            believed += 1;
            let mut again = Vec::new();
            other.write(&mut again).unwrap();
            let mut there = vec![0; again.len()];
            image.read_exact_at(&mut there, 0).unwrap();
            assert!(again == there, "byte {at}");
        }
        image.write_all_at(&byte, at).unwrap();
    }
    assert!(believed > 100, "contents and times may be anything");
    for cut in [0, 1000, 1100, 4096, size - 1] {
        let short = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; usize::try_from(cut).unwrap()];
        image.read_exact_at(&mut bytes, 0).unwrap();
        short.write_all_at(&bytes, 0).unwrap();
        let error = open(short).unwrap_err().to_string();
        assert!(
            error.contains("not an image that `gleaner image import` built"),
            "{error}"
        );
    }
}
