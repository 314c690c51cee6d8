//! Servers that say who has asked them, and those who ask; on the host's side and, as a program, in pods.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

/// How long an answer that should not come is waited for.
const SILENCE: Duration = Duration::from_millis(800);

/// Listens on a port, of TCP and UDP, and answers with the address that it was asked from; for ever.
///
/// # Errors
/// The port is taken.
pub fn serve(port: u16) -> io::Result<()> {
    let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let (tcp, udp) = (TcpListener::bind(all)?, UdpSocket::bind(all)?);
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let peer = stream.peer_addr().map(text).unwrap_or_default();
            let _ = (&stream).write_all(peer.as_bytes()); // Who has gone needs no answer.
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(text(peer).as_bytes(), peer); // Likewise.
        }
    });
    Ok(())
}

fn text(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// What a server of TCP says; `None`: nobody does.
pub fn tcp(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE).ok()?;
    stream.set_read_timeout(Some(SILENCE)).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok().map(|_| said).filter(|said| !said.is_empty())
}

/// What a server of UDP answers.
pub fn udp(address: SocketAddr) -> Option<String> {
    let own: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0)).ok()?;
    socket.set_read_timeout(Some(SILENCE)).ok()?;
    socket.send_to(b"who am I", address).ok()?;
    let mut buffer = [0; 64];
    let (count, peer) = socket.recv_from(&mut buffer).ok()?;
    (peer == address).then(|| String::from_utf8_lossy(&buffer[..count]).into_owned())
}
