//! The user's terminal, while an interactive pod has it.

use std::io::{IsTerminal, Stdin, stdin};
use std::os::fd::{AsFd, BorrowedFd};

use hull_agent_protocol::TerminalSize;
use hull_errors::Doing;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::{Error, Kind, sys};

/// The size of the user's terminal; 24 rows of 80 columns where there is none.
pub fn size() -> TerminalSize {
    size_of(stdin().as_fd())
}

/// Likewise of any terminal.
pub(crate) fn size_of(terminal: BorrowedFd<'_>) -> TerminalSize {
    let asked = sys::window_size(terminal).filter(|size| size.ws_row > 0 && size.ws_col > 0);
    asked.map_or(TerminalSize { rows: 24, columns: 80 }, |size| TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// A terminal in raw mode: the pod's own terminal does the line editing. Restored on drop.
#[derive(Debug)]
pub struct Raw {
    stdin: Stdin,
    before: Termios,
}

impl Raw {
    /// Makes standard input raw; `None` if it is no terminal.
    ///
    /// # Errors
    /// The host's.
    pub fn enter() -> Result<Option<Self>, Error> {
        let stdin = stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).doing(Kind::Host, || "read the terminal's settings".into())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).doing(Kind::Host, || "make the terminal raw".into())?;
        Ok(Some(Self { stdin, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, SetArg::TCSANOW, &self.before); // A terminal that is gone needs nothing.
    }
}
