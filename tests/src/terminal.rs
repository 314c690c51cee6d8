//! A terminal for the tests that need a user at one.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hull::Watchdog;

/// The user's end of a pseudo-terminal with a command at the other.
#[derive(Debug)]
pub struct Terminal {
    screen: File,
    child: Child,
    _watchdog: Watchdog,
}

impl Terminal {
    /// Starts `command` with the terminal as its standard streams.
    pub fn run(mut command: Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a pseudo-terminal");
        let end = || slave.try_clone().expect("one more descriptor");
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("hull starts");
        drop(slave);
        let _watchdog = Watchdog::over(child.id());
        Self { screen: master.into(), child, _watchdog }
    }

    /// Changes the size of the window.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        // stty(1) works on its standard input, and saves an ioctl here.
        let stdin = self.screen.try_clone().expect("one more descriptor");
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let status = Command::new("stty").args(["rows", &rows, "columns", &columns]).stdin(stdin).status();
        assert!(status.expect("stty runs").success());
        // The kernel tells the foreground group of the terminal; hull is in none, so it is told here.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGWINCH).expect("hull runs");
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("type");
    }

    /// Reads until `text` has come; returns all that came.
    pub fn await_text(&mut self, text: &str) -> String {
        let mut got = Vec::new();
        let mut byte = [0];
        while !got.ends_with(text.as_bytes()) {
            match self.screen.read(&mut byte) {
                Ok(1) => got.push(byte[0]),
                _ => panic!("the terminal closed before {text:?} came: {:?}", String::from_utf8_lossy(&got)),
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    /// Reads to the end and gives the rest of the screen and the exit code.
    pub fn finish(mut self) -> (String, Option<i32>) {
        let mut rest = Vec::new();
        let _ = self.screen.read_to_end(&mut rest); // A pseudo-terminal ends with EIO when its last user goes.
        let status = self.child.wait().expect("wait for hull");
        (String::from_utf8_lossy(&rest).into_owned(), status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already is as good.
        let _ = self.child.wait();
    }
}
