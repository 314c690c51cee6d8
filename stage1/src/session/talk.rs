//! Words with the agent: what is queued goes out, what comes in is done.

use std::io::{ErrorKind, Read, Write};

use hull_agent_protocol::frame::DATA_MAX;
use hull_agent_protocol::host::Event;
use hull_agent_protocol::{ToAgent, Violation};

use super::stop::Stop;
use super::{End, Session};
use crate::Error;
use crate::output::Output;

/// Most bytes that wait for the agent: a `Start` message, all windows' worth of input, and then some. Only an
/// agent that talks without listening lets more pile up.
const TO_AGENT_MAX: usize = 16 << 20;

/// Most reads from the agent before signals and outputs have their turn. More than a socket holds, so that
/// the last words of an agent that has gone are heard whole.
const READS_MAX: usize = 16;

/// Why the loop leaves in the middle.
pub(super) enum Trouble {
    End(End),
    Host(Error),
}

impl From<Violation> for Trouble {
    fn from(why: Violation) -> Self {
        Self::End(End::Broken(why))
    }
}

impl From<Error> for Trouble {
    fn from(why: Error) -> Self {
        Self::Host(why)
    }
}

impl Session {
    pub(super) fn talk(&mut self, readable: bool) -> Result<(), Trouble> {
        if readable {
            self.listen()?;
        }
        // The agent may end the link while we still speak; what it said last is read first.
        while !self.to_agent.is_empty() {
            match self.link.write(&self.to_agent) {
                Ok(written) => drop(self.to_agent.drain(..written)),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::Interrupted => (),
                Err(_) => {
                    self.to_agent.clear();
                    self.listen()?;
                    return match self.host.is_finished() {
                        true => Ok(()),
                        false => Err(Trouble::End(End::LinkLost)),
                    };
                }
            }
        }
        if self.to_agent.len() > TO_AGENT_MAX {
            return Err(Violation("the agent talks and does not listen".into()).into());
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), Trouble> {
        let mut buffer = [0; 2 * DATA_MAX];
        for _ in 0..READS_MAX {
            if self.host.is_finished() {
                break;
            }
            match self.link.read(&mut buffer) {
                Ok(0) => return Err(Trouble::End(End::LinkLost)),
                Ok(count) => self.hear(&buffer[..count])?,
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::Interrupted => (),
                Err(_) => return Err(Trouble::End(End::LinkLost)),
            }
        }
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.next_frame()? {
            if let Some(event) = self.host.receive(frame)? {
                self.on_event(event)?;
            }
        }
        if self.host.has_greeted() && self.stop == Stop::No {
            self.deadline = None;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Started { app, pid } => {
                self.outputs.iter_mut().for_each(|output| output.app_started(app, pid));
                self.record.started(app)?;
                self.tell_started();
                Ok(())
            }
            Event::Output { channel, bytes } => {
                self.logs.iter_mut().for_each(|log| log.add(channel, &bytes));
                self.flows.entry(channel).or_default().received += bytes.len() as u64;
                let readers = self.outputs.iter_mut().filter(|output| output.channel == channel);
                readers.for_each(|output| output.push(&bytes));
                self.settle(channel)
            }
            Event::Exited { app, outcome } => {
                self.app_ended(app, outcome);
                self.record.exited(app, outcome)
            }
            Event::Restarting { app, outcome, .. } => self.record.restarting(app, outcome),
            Event::Warning { text } => self.record.warn(text),
            Event::Failed { text, .. } => {
                self.record.failed(text);
                Ok(())
            }
            Event::Sign { request, content } => {
                let signature = self.signer.as_ref().map(|signer| signer.sign(&content)).unwrap_or_default();
                self.say(&ToAgent::Signed { request, signature })
            }
            Event::Verify { request, uuid, content, signature } => {
                let signer = self.signer.as_ref();
                let valid = signer.is_some_and(|signer| signer.verify(&uuid, &content, &signature));
                self.say(&ToAgent::Verified { request, valid })
            }
            Event::ProcessStarted { process } => {
                self.process_started(process);
                Ok(())
            }
            Event::ProcessFailed { process, text } => {
                self.process_failed(process, text);
                Ok(())
            }
            Event::ProcessExited { process, outcome } => {
                self.process_exited(process, outcome);
                Ok(())
            }
            Event::OutputEnded { channel } => {
                self.outputs.iter_mut().filter(|o| o.channel == channel).for_each(Output::end);
                Ok(())
            }
            Event::InputAllowed { .. } | Event::Finished => Ok(()),
        }
    }
}
