//! The prompt, and the dashboard of a training, on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use super::{RUN, fail, kiln, sample_recipe, text};

/// A program on its own terminal.
struct Session {
    child: Child,
    terminal: File,
    shown: String,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let size = nix::pty::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).expect("the system has terminals");
        let end = || Stdio::from(pty.slave.try_clone().expect("a second handle"));
        let mut command = kiln(arguments);
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the binary runs");
        Self { child, terminal: pty.master.into(), shown: String::new() }
    }

    /// Waits until a text is shown after the last one that was waited for.
    fn wait_for(&mut self, expected: &str) -> &mut Self {
        let mut bytes = [0; 1024];
        loop {
            if let Some(at) = self.shown.find(expected) {
                self.shown.drain(..at + expected.len());
                return self;
            }
            let read = self.terminal.read(&mut bytes).unwrap_or(0);
            assert!(read > 0, "`{expected}` is not shown: {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    fn press(&mut self, keys: &str) -> &mut Self {
        self.terminal.write_all(keys.as_bytes()).expect("the prompt reads");
        self
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

#[test]
fn lines_are_edited_and_repeated() {
    let mut session = Session::start(&["predict", "--model", text(&RUN), "--json"]);
    session.wait_for("> ").press("ab\u{7f}\tc\r").wait_for(r#"{"text":"a","text_pair":"c","#);
    // The up key brings back the previous line.
    session.wait_for("> ").press("\u{1b}[A\r").wait_for(r#"{"text":"a","text_pair":"c","#);
    session.wait_for("> ").press("\r").wait_for("> ").press("q\r");
    assert_eq!(session.exit_code(), Some(0));
}

#[test]
fn a_text_that_cannot_be_answered_does_not_end_the_session() {
    let mut session = Session::start(&["fill-mask"]);
    session.wait_for("> ").press("nothing\r").wait_for("error: there is no [MASK]");
    session.wait_for("> ").press("\u{4}");
    assert_eq!(session.exit_code(), Some(0));
    let mut session = Session::start(&["fill-mask"]);
    session.wait_for("> ").press("\u{3}").wait_for("interrupted");
    assert_eq!(session.exit_code(), Some(130));
}

/// The query for the cursor's position, and a terminal's reply.
const CURSOR_QUERY: &str = "\u{1b}[6n";
const CURSOR_AT_TOP: &str = "\u{1b}[1;1R";

#[test]
fn a_training_draws_its_curves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (recipe, out) = (sample_recipe(), folder.path().join("run"));
    let train = ["train", "--recipe", text(&recipe), "--out", text(&out), "--set", "train.epochs=2", "--dashboard"];
    let mut session = Session::start(&train);
    session.wait_for(CURSOR_QUERY).press(CURSOR_AT_TOP);
    // Blank cells are not drawn, so the test can only wait for single words of the dashboard. Log lines are complete.
    for shown in ["gradient", "epoch 1/2  train loss", "best", "epoch 2/2  train loss", "test"] {
        session.wait_for(shown);
    }
    assert_eq!(session.exit_code(), Some(0));
}

#[test]
fn curves_need_a_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (recipe, out) = (sample_recipe(), folder.path().join("run"));
    let refused = fail(&["train", "--recipe", text(&recipe), "--out", text(&out), "--dashboard"]);
    assert!(refused.0 == 2 && refused.1.contains("--watch") && !out.exists(), "{refused:?}");
}
