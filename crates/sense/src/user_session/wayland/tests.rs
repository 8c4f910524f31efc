//! A compositor that the test plays, word for word; real ones are in the crate's tests of peers.

use super::*;
use socket::{Word, request};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

/// A request as the compositor reads it: object, number, words of the body.
fn heard(stream: &mut UnixStream) -> (u32, u16, Vec<u8>) {
    let mut head = [0; 8];
    stream.read_exact(&mut head).unwrap();
    let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
    let size = usize::try_from(word(4) >> 16).unwrap();
    let mut body = vec![0; size - 8];
    stream.read_exact(&mut body).unwrap();
    (word(0), u16::try_from(word(4) & 0xffff).unwrap(), body)
}

fn last(body: &[u8], back: usize) -> u32 {
    let at = body.len() - 4 * back;
    u32::from_ne_bytes(body[at..at + 4].try_into().unwrap())
}

fn global(name: u32, interface: &str, version: u32) -> Vec<u8> {
    // Events are laid out as requests are.
    let words = [
        Word::Number(name),
        Word::Text(interface),
        Word::Number(version),
    ];
    request(2, 0, &words)
}

/// Takes a client's first requests and tells it what there is.
fn welcome(stream: &mut UnixStream, globals: &[(&str, u32)]) {
    assert_eq!(heard(stream).0, 1, "the registry");
    assert_eq!(heard(stream).0, 1, "the end of it");
    for (name, (interface, version)) in (10..).zip(globals) {
        stream
            .write_all(&global(name, interface, *version))
            .unwrap();
    }
    stream
        .write_all(&request(3, 0, &[Word::Number(0)]))
        .unwrap();
}

struct Player {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    listener: UnixListener,
}

fn player() -> Player {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wayland-0");
    let listener = UnixListener::bind(&path).unwrap();
    Player {
        _folder: folder,
        path,
        listener,
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn idleness_and_full_screen_are_followed() {
    let player = player();
    let desk = Arc::new(Desk::default());
    let (stop, seen) = (Stop::new().unwrap(), desk.clone());
    let path = player.path.clone();
    let (sender, ended) = channel();
    let client = std::thread::spawn(move || sender.send(run(&stop, &seen, &path)).unwrap());
    let (mut stream, _) = player.listener.accept().unwrap();
    let globals = [
        ("wl_compositor", 6),
        ("wl_seat", 8),
        ("ext_idle_notifier_v1", 2),
        ("zwlr_foreign_toplevel_manager_v1", 3),
    ];
    welcome(&mut stream, &globals);
    let (_, _, bind) = heard(&mut stream);
    let notifier = last(&bind, 1);
    let (_, _, bind) = heard(&mut stream);
    let seat = last(&bind, 1);
    let (object, number, body) = heard(&mut stream);
    assert_eq!(
        (object, number),
        (notifier, 2),
        "input, whatever is inhibited"
    );
    assert_eq!(last(&body, 1), seat);
    let watch = last(&body, 3);
    let (_, _, bind) = heard(&mut stream);
    let windows = last(&bind, 1);
    until("in use at first", || desk.word().active.is_some());
    stream.write_all(&request(watch, 0, &[])).unwrap();
    let idle = || {
        let at = desk.word().active.unwrap();
        Moment::now().since(at) > Duration::from_millis(1200)
    };
    until("idle", idle);
    stream.write_all(&request(watch, 1, &[])).unwrap();
    until("used again", || !idle());

    let window = 0xff00_0000_u32;
    stream
        .write_all(&request(windows, 0, &[Word::Number(window)]))
        .unwrap();
    stream
        .write_all(&request(window, 0, &[Word::Text("a title")]))
        .unwrap();
    let states = [Word::Number(8), Word::Number(2), Word::Number(3)];
    stream.write_all(&request(window, 4, &states)).unwrap();
    until("full screen", || desk.word().full_screen);
    stream.write_all(&request(window, 6, &[])).unwrap();
    until("closed", || !desk.word().full_screen);
    let (object, number, _) = heard(&mut stream);
    assert_eq!((object, number), (window, 7), "the number is given back");
    drop(stream);
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), End::Gone);
    client.join().unwrap();
}

#[test]
fn a_compositor_that_does_not_tell_is_told_apart() {
    for globals in [&[("wl_seat", 8)][..], &[("ext_idle_notifier_v1", 1)][..]] {
        let player = player();
        let path = player.path.clone();
        let client =
            std::thread::spawn(move || run(&Stop::new().unwrap(), &Desk::default(), &path));
        let (mut stream, _) = player.listener.accept().unwrap();
        welcome(&mut stream, globals);
        assert_eq!(client.join().unwrap(), End::NoIdle);
    }
}

#[test]
fn nonsense_ends_the_connection() {
    for nonsense in [
        vec![0; 64],
        request(1, 0, &[Word::Number(3), Word::Text("no")]),
    ] {
        let player = player();
        let path = player.path.clone();
        let client =
            std::thread::spawn(move || run(&Stop::new().unwrap(), &Desk::default(), &path));
        let (mut stream, _) = player.listener.accept().unwrap();
        stream.write_all(&nonsense).unwrap();
        assert_eq!(client.join().unwrap(), End::Gone);
    }
}

#[test]
fn any_event_is_survived() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::default();
    let words = prop::collection::vec(any::<u32>(), 0..12);
    let survived = |(object, event, words): (u32, u16, Vec<u32>)| {
        let player = player();
        let stop = Stop::new().unwrap();
        let mut socket = Socket::connect(&player.path, &stop).unwrap();
        let (mut stream, _) = player.listener.accept().unwrap();
        let words: Vec<Word<'_>> = words.into_iter().map(Word::Number).collect();
        stream.write_all(&request(object, event, &words)).unwrap();
        let message = socket.next(PATIENCE).unwrap().unwrap();
        let _meaning = Objects::default().event(&message);
        Ok(())
    };
    runner.run(&(1_u32..6, 0_u16..8, words), survived).unwrap();
}
