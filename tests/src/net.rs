//! Hosts with networks of a test's own: nothing reaches the machine that the tests run on.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

use crate::hull::until;
use crate::probe;

/// A place in a network.
#[derive(Debug)]
pub struct Place(File);

/// A host, and the rest of the world behind its only link.
#[derive(Debug)]
pub struct World {
    pub host: Place,
    pub outside: Place,
}

impl World {
    /// The host's addresses on its link.
    pub const HOST: &'static str = "93.184.216.1";
    pub const HOST6: &'static str = "2606:2800:220:1::1";
    /// Somebody's in the world.
    pub const OUTSIDE: &'static str = "93.184.216.34";
    pub const OUTSIDE6: &'static str = "2606:2800:220:1::34";
    /// Somebody's, such as only private networks have.
    pub const PRIVATE: &'static str = "10.11.12.13";
    pub const PRIVATE6: &'static str = "fd00:11::13";

    /// Runs a test as on a host of its own: whatever it starts is there.
    pub fn visit(test: impl FnOnce(&Self) + Send) {
        thread::scope(|scope| {
            let visit = scope.spawn(|| {
                let world = Self::new();
                test(&world);
            });
            if let Err(why) = visit.join() {
                std::panic::resume_unwind(why);
            }
        });
    }

    fn new() -> Self {
        let here = || File::open("/proc/thread-self/ns/net").expect("a network namespace");
        let make = || unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        make();
        let outside = Place(here());
        make();
        let host = Place(here());
        // What plugins make is to be used at once, and not when nobody has claimed its address for a second.
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("root may");
        let world = Self { host, outside };
        world.host.ip("link set lo up");
        world.outside.ip("link set lo up");
        world.host.ip(&format!("link add uplink type veth peer name eth0 netns {}", world.outside.path()));
        let connect = |place: &Place, name: &str, addresses: &[String]| {
            place.ip(&format!("link set {name} up"));
            for address in addresses {
                place.ip(&format!("address add {address} dev {name} nodad"));
            }
        };
        let (four, six) = (|ip: &str| format!("{ip}/24"), |ip: &str| format!("{ip}/64"));
        connect(&world.host, "uplink", &[four(Self::HOST), six(Self::HOST6)]);
        connect(
            &world.outside,
            "eth0",
            &[four(Self::OUTSIDE), six(Self::OUTSIDE6), four(Self::PRIVATE), six(Self::PRIVATE6)],
        );
        world.host.ip(&format!("route add default via {}", Self::OUTSIDE));
        world.host.ip(&format!("-6 route add default via {}", Self::OUTSIDE6));
        world
    }
}

impl Place {
    /// For programs that are told a namespace by its path.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `ip WORDS` there.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("ip").args(words.split_whitespace());
        let output = command.output().expect("util-linux has nsenter");
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Every interface but the loopback, every rule and every neighbour's route that pods could leave there.
    pub fn traces(&self) -> String {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net={}", self.path())).args(["nft", "list", "tables"]);
        let tables = nft.output().expect("nftables is installed").stdout;
        let links = self.ip("-o link");
        let links = links.lines().filter(|line| !line.contains(": lo:") && !line.contains(": uplink@"));
        links.map(|line| format!("{line}\n")).chain([String::from_utf8_lossy(&tables).into_owned()]).collect()
    }

    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the namespace is there");
                work()
            });
            inside.join().unwrap_or_else(|why| std::panic::resume_unwind(why))
        })
    }

    /// Serves a port there, as long as the test program lives: [`probe::serve`].
    pub fn serve(&self, port: u16) {
        self.enter(|| probe::serve(port)).expect("a new host's ports are free");
    }

    /// How long it takes to receive so many bytes there, which `send` sends.
    pub fn receive(&self, port: u16, bytes: u64, send: impl FnOnce()) -> Duration {
        let all = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
        let listener = self.enter(|| TcpListener::bind(all)).expect("a new host's ports are free");
        listener.set_nonblocking(true).expect("a socket");
        thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                let mut stream = None;
                until("somebody connects", || {
                    stream = listener.accept().ok();
                    stream.is_some()
                });
                let (stream, _) = stream.expect("waited for");
                stream.set_nonblocking(false).expect("a socket");
                let begin = Instant::now();
                let count = std::io::copy(&mut stream.take(bytes), &mut std::io::sink());
                assert_eq!(count.expect("bytes come"), bytes);
                begin.elapsed()
            });
            send();
            receiver.join().unwrap_or_else(|why| std::panic::resume_unwind(why))
        })
    }

    /// What a server of TCP says to who is there.
    pub fn tcp(&self, ip: &str, port: u16) -> Option<String> {
        self.enter(|| probe::tcp(SocketAddr::new(ip.parse().expect("an address"), port)))
    }

    /// Likewise of UDP.
    pub fn udp(&self, ip: &str, port: u16) -> Option<String> {
        self.enter(|| probe::udp(SocketAddr::new(ip.parse().expect("an address"), port)))
    }
}
