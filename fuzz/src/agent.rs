//! The words of an agent to its stage1, and the other way round.

use hull_agent_protocol::TerminalSize;
use hull_agent_protocol::export::Entry;
use hull_agent_protocol::host::{Event, Host};
use hull_agent_protocol::message::Message;
use hull_agent_protocol::{AppSpec, Decoder, FromAgent, ImageSource, PodSpec, StandardStreams, ToAgent};

/// Bytes that arrive at once: the first of the input says how many, so that cuts fall anywhere.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (length, rest) = bytes.split_first().map_or((1, bytes), |(first, rest)| (usize::from(*first), rest));
    rest.chunks(length.max(1))
}

/// What a hostile agent says to the host's end, up to the first violation.
pub(crate) fn conversation(bytes: &[u8]) {
    let mut host = Host::new(&pod());
    let mut decoder = Decoder::default();
    for piece in pieces(bytes) {
        decoder.push(piece);
        loop {
            let Ok(frame) = decoder.next_frame() else { return };
            let Some(frame) = frame else { break };
            let Ok(event) = host.receive(frame) else { return };
            if let Some(Event::Output { channel, bytes }) = event {
                host.consumed(channel, bytes.len());
            }
        }
    }
}

/// What an agent is told: the host is trusted, its bytes are decoded with the same care.
pub(crate) fn orders(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    for piece in pieces(bytes) {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let _ = ToAgent::decode(&frame.payload); // Refusing is right; panicking is not.
            let _ = FromAgent::decode(&frame.payload); // Likewise.
        }
    }
}

/// What a hostile agent says that an app's files are.
pub(crate) fn entries(bytes: &[u8]) {
    let Ok(entry) = Entry::decode(bytes) else { return };
    let mut again = vec![];
    entry.encode(&mut again).expect("what was accepted is written");
    assert_eq!(Entry::decode(&again[4..]), Ok(entry));
}

fn pod() -> PodSpec {
    let terminal = StandardStreams::Terminal { channel: 4, size: TerminalSize { rows: 24, columns: 80 } };
    let pipes = StandardStreams::Pipes { stdin: Some(1), stdout: 2, stderr: 3 };
    PodSpec { apps: [pipes, terminal].into_iter().map(app).collect(), ..PodSpec::default() }
}

fn app(streams: StandardStreams) -> AppSpec {
    AppSpec::new("a", ImageSource::Device { path: "/dev/vda".into() }, &["/bin/true"], streams)
}
