//! Pods in networks: who reaches whom, and what is left of it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use hull_tests::hull::{finish, until};
use hull_tests::image::{Builder, Layer};
use hull_tests::net::World;
use hull_tests::{Ended, Flavour, Hull, Image, Started};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// busybox, and a program that asks and answers.
fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let probe = std::fs::read(env!("CARGO_BIN_EXE_probe")).expect("cargo has built it");
        Builder::standard().layer(Layer::default().file("probe", 0o755, &probe)).oci()
    })
}

fn command(hull: &Hull, flavour: Flavour, options: &[&str], exec: &[&str]) -> Command {
    let mut command = hull.command(["run", flavour.option(), "--insecure-options=image"]);
    command.args(options).args([&image().reference(), "--"]).args(exec);
    command
}

fn run(hull: &Hull, flavour: Flavour, options: &[&str], script: &str) -> Ended {
    finish(command(hull, flavour, options, &["/bin/sh", "-c", script]))
}

/// Starts a pod that answers on port 80, of TCP and UDP.
fn serve(hull: &Hull, flavour: Flavour, options: &[&str]) -> Started {
    let mut pod = hull.spawn_command(command(hull, flavour, options, &["/probe", "serve", "80"]));
    pod.await_output("ready\n");
    pod
}

/// What a pod hears from each of these ports, of TCP and UDP.
fn ask(hull: &Hull, flavour: Flavour, options: &[&str], servers: &[(&str, u16)]) -> Vec<String> {
    let words = questions(servers);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    answers(&finish(command(hull, flavour, options, &words)).success())
}

fn questions(servers: &[(&str, u16)]) -> Vec<String> {
    let mut words = vec!["/probe".to_owned(), "ask".into()];
    for (ip, port) in servers {
        let address = SocketAddr::new(ip.parse().expect("an address"), *port).to_string();
        words.extend(["tcp".into(), address.clone(), "udp".into(), address]);
    }
    words
}

fn answers(said: &str) -> Vec<String> {
    said.lines().filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
}

/// The id and the addresses of the only pod that runs.
fn running(hull: &Hull, network: &str) -> (String, String, String) {
    let pods: Value = serde_json::from_str(&hull.hull(&["list", "--format=json"]).success()).expect("JSON");
    let pods = pods.as_array().expect("a list");
    let pod = pods.iter().find(|pod| pod["state"] == "running").expect("one runs");
    let networks = pod["networks"].as_array().expect("it is in networks");
    let found = networks.iter().find(|n| n["netName"] == network).expect("it is in this one");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&pod["name"]), text(&found["ip"]), text(&found["ip6"]))
}

pub(crate) fn a_pod_reaches_whom_its_network_leads_to(flavour: Flavour) {
    World::visit(|world| {
        world.host.serve(7);
        world.outside.serve(7);
        let hull = Hull::new();
        let check = |network: &str, gateways: [&str; 2], prefixes: [&str; 2], out: [&str; 2]| {
            let option = format!("--net={network}");
            let [four, six] = gateways;
            let servers = [(four, 7), (six, 7), (World::OUTSIDE, 7), (World::OUTSIDE6, 7)];
            let heard = ask(&hull, flavour, &[&option], &servers);
            // The host sees the pod's own address.
            for (index, prefix) in [(0, prefixes[0]), (1, prefixes[0]), (2, prefixes[1]), (3, prefixes[1])] {
                assert!(heard[index].starts_with(prefix), "{network} {index}: {heard:?}");
            }
            // The world sees the host's, or nothing.
            assert_eq!(heard[4..], [out[0], out[0], out[1], out[1]], "{network}");
        };
        let gateways = ["172.16.28.1", "fd68:756c:6c70:1::1"];
        check("default", gateways, ["172.16.28.", "fd68:756c:6c70:1:"], [World::HOST, World::HOST6]);
        let gateways = ["172.31.0.1", "fd68:756c:6c70:2::1"];
        check("default-restricted", gateways, ["172.31.", "fd68:756c:6c70:2:"], ["nothing"; 2]);
        assert_eq!(world.host.traces(), "", "each pod has taken all away");
    });
}

pub(crate) fn a_pod_is_reached_by_its_host_and_by_other_pods(flavour: Flavour) {
    World::visit(|world| {
        let hull = Hull::new();
        for network in ["default", "default-restricted"] {
            let option = format!("--net={network}");
            let pod = serve(&hull, flavour, &[&option]);
            let (_, ip, ip6) = running(&hull, network);
            for ip in [&ip, &ip6] {
                assert!(world.host.tcp(ip, 80).is_some(), "{network} {ip}");
                assert!(world.host.udp(ip, 80).is_some(), "{network} {ip}");
                assert_eq!(world.outside.tcp(ip, 80), None, "the world has no way to it");
            }
            let heard = ask(&hull, flavour, &[&option], &[(&ip, 80), (&ip6, 80)]);
            assert!(heard.iter().all(|said| said != "nothing"), "{network}: {heard:?}");
            pod.signal(Signal::SIGTERM);
            pod.wait();
        }
        assert_eq!(world.host.traces(), "");
    });
}

pub(crate) fn a_published_port_leads_to_the_pod_from_everywhere(flavour: Flavour) {
    World::visit(|world| {
        let hull = Hull::new();
        let _pod = serve(&hull, flavour, &["--net=default", "--port=80-tcp:8080", "--port=80-udp:8080"]);
        let (id, ip, _) = running(&hull, "default");
        for (place, ips) in [
            (&world.outside, &[World::HOST, World::HOST6][..]),
            (&world.host, &["127.0.0.1", "127.1.2.3", World::HOST, World::HOST6]),
        ] {
            for ip in ips {
                assert!(place.tcp(ip, 8080).is_some(), "tcp {ip}");
                assert!(place.udp(ip, 8080).is_some(), "udp {ip}");
            }
        }
        assert_eq!(world.outside.tcp(World::HOST, 8080).as_deref(), Some(World::OUTSIDE), "it sees who asks");
        let servers = [(World::HOST, 8080), (World::HOST6, 8080)];
        let heard = ask(&hull, flavour, &["--net=default"], &servers);
        assert!(heard.iter().all(|said| said != "nothing"), "from another pod: {heard:?}");
        assert!(heard[0].starts_with("172.16.28.") && heard[0] != ip, "{heard:?}");
        let words = questions(&servers);
        let exec: Vec<&str> = ["exec", &id].into_iter().chain(words.iter().map(String::as_str)).collect();
        let heard = answers(&hull.hull(&exec).success());
        assert!(heard.iter().all(|said| said != "nothing"), "from the pod itself: {heard:?}");
        run(&hull, flavour, &["--net=default", "--port=99-tcp:8080"], "true").failure(&["tcp port", "8080"]);
    });
}

pub(crate) fn a_port_of_one_address_leads_from_there_only(flavour: Flavour) {
    World::visit(|world| {
        let hull = Hull::new();
        let here = format!("--port=80-tcp:{}:8080", World::HOST);
        let ports = [&here, "--port=80-tcp:127.0.0.1:8081", "--port=80-tcp:[2606:2800:220:1::1]:8082"];
        let _pod = serve(&hull, flavour, &[&["--net=default"], &ports[..]].concat());
        let heard =
            |ip: &str, port| (world.outside.tcp(ip, port).is_some(), world.host.tcp(ip, port).is_some());
        assert_eq!(heard(World::HOST, 8080), (true, true));
        assert_eq!(heard(World::HOST6, 8080), (false, false));
        assert_eq!(heard(World::HOST, 8081), (false, false));
        assert!(world.host.tcp("127.0.0.1", 8081).is_some());
        assert_eq!(heard(World::HOST6, 8082), (true, true));
    });
}

pub(crate) fn a_port_that_is_taken_is_an_error_before_anything_starts(flavour: Flavour) {
    World::visit(|world| {
        world.host.serve(7);
        let hull = Hull::new();
        run(&hull, flavour, &["--net=default", "--port=80-tcp:7"], "true")
            .failure(&["tcp port", ":7", "another"]);
        run(&hull, flavour, &["--net=default", "--port=80-udp:1.2.3.4:9"], "true")
            .failure(&["1.2.3.4", "no such address"]);
        run(&hull, flavour, &["--net=default", "--port=http:9"], "true").failure(&["http", "NUMBER-tcp"]);
        run(&hull, flavour, &["--net=none", "--port=80-tcp:9"], "true").failure(&["--net"]);
        assert_eq!(hull.pods(), Vec::<String>::new());
        assert_eq!(world.host.traces(), "");
    });
}

pub(crate) fn a_pod_is_in_the_networks_that_it_names(flavour: Flavour) {
    World::visit(|world| {
        let hull = Hull::new();
        let links = |net: &str| run(&hull, flavour, &[net], "ls /sys/class/net");
        assert_eq!(links("--net=none").success(), "lo\n");
        assert_eq!(links("--net").success(), "eth0\nlo\n");
        assert_eq!(links("--net=all").success(), "eth0\neth1\nlo\n");
        links("--net=default,nope").failure(&["networks not found: nope"]);
        match flavour {
            Flavour::Kvm => drop(links("--net=host").failure(&["--net=host", "nspawn"])),
            _ => assert!(links("--net=host").success().contains("uplink")),
        }
        let script = "busybox ping -c 1 -W 1 127.0.0.1 >/dev/null && busybox ip -4 address show eth0";
        let said = run(&hull, flavour, &["--net=default:IP=172.16.28.9"], script).success();
        assert!(said.contains("inet 172.16.28.9/32"), "{said}");
        let options = ["--net=default:IP=172.16.28.9"];
        let pod = serve(&hull, flavour, &options);
        run(&hull, flavour, &options, "true").failure(&["172.16.28.9", "another pod"]);
        drop(pod);
        hull.collect();
        until("nothing is left", || world.host.traces().is_empty());
    });
}

pub(crate) fn a_pod_that_speaks_in_anothers_name_is_not_heard(flavour: Flavour) {
    World::visit(|world| {
        world.host.serve(7);
        let hull = Hull::new();
        let say = "/probe ask tcp 172.16.28.1:7 udp 172.16.28.1:7";
        let script = format!(
            "set -e; PATH=/bin; {say}; ip() {{ busybox ip \"$@\"; }}; \
             ip address add 172.16.28.77/32 dev eth0; ip route change 172.16.28.1 dev eth0 src 172.16.28.77; {say}; \
             ip route change 172.16.28.1 dev eth0; {say}; \
             ip route add 127.9.9.9 via 172.16.28.1; ip rule add pref 0 to 127.9.9.9 lookup main; \
             /probe ask tcp 127.9.9.9:7; \
             ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up; \
             ip route add 172.16.28.1 dev eth0 || true; {say}"
        );
        let options = ["--net=default", "--caps-retain=CAP_NET_ADMIN,CAP_NET_RAW"];
        let heard = answers(&run(&hull, flavour, &options, &script).success());
        let honest = |said: &String| said.starts_with("172.16.28.") && said != "172.16.28.77";
        assert!(heard[..2].iter().all(honest) && heard[4..6].iter().all(honest), "{heard:?}");
        assert_eq!(heard[2..4], ["nothing", "nothing"], "another address");
        assert_eq!(heard[6..], ["nothing"; 3], "the host's loopback; another hardware address");
        assert_eq!(world.host.traces(), "");
    });
}

pub(crate) fn a_killed_pod_leaves_no_network_after_gc(flavour: Flavour) {
    World::visit(|world| {
        let hull = Hull::new();
        let options = ["--net=default,default-restricted", "--port=80-tcp:8080"];
        run(&hull, flavour, &options, "true").success();
        for step in 0..6 {
            let mut pod = hull.spawn_command(command(&hull, flavour, &options, &["/probe", "serve", "80"]));
            match step {
                0 => pod.await_output("ready\n"),
                // Whatever there is by then: one interface, both, rules.
                _ => until("its networks have begun", || world.host.traces().lines().count() >= step / 2),
            }
            pod.signal(Signal::SIGKILL);
            pod.wait();
            hull.collect().success();
            until("nothing is left", || world.host.traces().is_empty());
        }
        run(&hull, flavour, &options, "true").success();
    });
}

/// Configures a network in this hull's settings.
fn configure(hull: &Hull, file: &str, network: &Value) {
    let folder = hull.settings().join("net.d");
    std::fs::create_dir_all(&folder).expect("a folder of settings");
    std::fs::write(folder.join(file), network.to_string()).expect("a file of settings");
}

/// What `host-local` keeps: a file for each address that is taken.
fn leases(hull: &Hull, network: &str) -> Vec<String> {
    let entries = std::fs::read_dir(hull.dir().join("leases").join(network)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
}

fn bridge(hull: &Hull) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "bridged", "plugins": [
        {
            "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": hull.dir().join("leases"),
                "ranges": [[{ "subnet": "10.77.0.0/24" }], [{ "subnet": "fd77::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
            "dns": { "nameservers": ["10.77.0.53"], "search": ["shop.example"] },
        },
        { "type": "tuning", "mtu": 1400 },
        { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
    ] })
}

pub(crate) fn a_configured_network_is_made_by_its_plugins(flavour: Flavour) {
    World::visit(|world| {
        world.outside.serve(7);
        let hull = Hull::new();
        configure(&hull, "10-bridged.conflist", &bridge(&hull));
        let heard = ask(&hull, flavour, &["--net=bridged"], &[(World::OUTSIDE, 7), (World::OUTSIDE6, 7)]);
        assert_eq!(heard, [World::HOST, World::HOST, World::HOST6, World::HOST6]);
        let script = "cat /etc/resolv.conf; busybox ip link show eth0";
        let said = run(&hull, flavour, &["--net=bridged"], script).success();
        assert!(said.starts_with("nameserver 10.77.0.53\nsearch shop.example\n"), "{said}");
        assert!(said.contains("mtu 1400"), "{said}");
        let said = run(&hull, flavour, &["--net=bridged", "--dns=none"], script).success();
        assert!(!said.contains("nameserver"), "{said}");
        let said = run(&hull, flavour, &["--net=bridged", "--dns=9.9.9.9"], script).success();
        assert!(said.starts_with("nameserver 9.9.9.9\n") && !said.contains("10.77"), "{said}");

        let pod = serve(&hull, flavour, &["--net=bridged:IP=10.77.0.9", "--port=80-tcp:8080"]);
        let (_, ip, ip6) = running(&hull, "bridged");
        assert_eq!(ip, "10.77.0.9");
        let heard = ask(&hull, flavour, &["--net=bridged"], &[(&ip, 80), (&ip6, 80)]);
        assert!(
            heard.iter().all(|said| said.starts_with("10.77.") || said.starts_with("fd77:")),
            "{heard:?}"
        );
        for (place, ip) in
            [(&world.outside, World::HOST), (&world.host, World::HOST), (&world.host, "127.0.0.1")]
        {
            assert!(place.tcp(ip, 8080).is_some(), "{ip}");
        }
        assert_eq!(leases(&hull, "bridged").len(), 2);
        pod.signal(Signal::SIGKILL);
        pod.wait();
        hull.collect().success();
        assert_eq!(leases(&hull, "bridged"), Vec::<String>::new());
        let left = world.host.traces();
        assert!(left.lines().all(|line| line.contains(" br0:") || line.starts_with("table ip")), "{left}");
    });
}

pub(crate) fn a_configured_network_takes_a_built_in_ones_place(flavour: Flavour) {
    World::visit(|world| {
        world.outside.serve(7);
        let hull = Hull::new();
        let macvlan = json!({
            "cniVersion": "0.3.1", "name": "default", "type": "macvlan", "master": "uplink", "mode": "bridge",
            "ipam": {
                "type": "host-local", "dataDir": hull.dir().join("leases"),
                "ranges": [[{ "subnet": "93.184.216.0/24", "rangeStart": "93.184.216.50", "rangeEnd": "93.184.216.60" }]],
            },
        });
        configure(&hull, "10-own.conf", &macvlan);
        // As itself, with nobody in between.
        let heard = ask(&hull, flavour, &["--net"], &[(World::OUTSIDE, 7)]);
        assert_eq!(heard, ["93.184.216.50"; 2]);
        assert_eq!(leases(&hull, "default"), Vec::<String>::new());
        assert_eq!(world.host.traces(), "");
        run(&hull, flavour, &["--net", "--port=80-tcp:8080"], "true").failure(&["portmap"]);
        configure(&hull, "20-broken.conf", &json!({ "name": "broken", "type": "nope" }));
        run(&hull, flavour, &["--net=broken"], "true").failure(&["\"nope\"", "containernetworking-plugins"]);
        let failing =
            json!({ "name": "failing", "type": "ptp", "ipam": { "type": "host-local", "subnet": "x" } });
        configure(&hull, "30-failing.conf", &failing);
        run(&hull, flavour, &["--net=default,failing"], "true").failure(&[
            "plugin ptp",
            "network failing",
            "ADD",
        ]);
        assert_eq!(leases(&hull, "default"), Vec::<String>::new());
        assert_eq!(world.host.traces(), "");
    });
}

pub(crate) fn a_pod_speaks_to_whom_it_may_only(flavour: Flavour) {
    World::visit(|world| {
        world.host.serve(7);
        world.outside.serve(7);
        let hull = Hull::new();
        let pod = serve(&hull, flavour, &["--net=default", "--egress=none", "--port=80-tcp:8080"]);
        let (_, ip, ip6) = running(&hull, "default");
        let servers = [
            (World::OUTSIDE, 7),
            (World::OUTSIDE6, 7),
            (World::PRIVATE, 7),
            (World::PRIVATE6, 7),
            ("172.16.28.1", 7),
            ("fd68:756c:6c70:1::1", 7),
            (World::HOST, 7),
            (World::HOST6, 7),
            (&ip, 80),
            (&ip6, 80),
            (World::HOST, 8080),
        ];
        // TCP and UDP of each in turn; who has several addresses answers UDP by its first.
        let heard = |egress: &str| {
            let heard = ask(&hull, flavour, &["--net=default", egress], &servers);
            heard.iter().map(|said| if said == "nothing" { '-' } else { '+' }).collect::<String>()
        };
        assert_eq!(heard("--egress=open"), "+++++-+-+++++-+-+++++-");
        assert_eq!(heard("--egress=none"), "----------------------");
        assert_eq!(heard("--egress=public"), "++++------------------");
        assert_eq!(heard("--egress=public,10.11.12.13:7/tcp"), "+++++-----------------");
        assert_eq!(
            heard("--egress=10.11.0.0/16,[fd00:11::/32]:7/tcp,172.16.28.1:7"),
            "----+-+-++------------"
        );
        // It answers, whomever it may not ask.
        assert!(world.outside.tcp(World::HOST, 8080).is_some());
        assert!(world.host.tcp(&ip6, 80).is_some());
        pod.signal(Signal::SIGTERM);
        pod.wait();
        let fragments = |ip: &str| {
            let script = format!("busybox ping -c 1 -W 1 -s 4000 {ip}");
            run(&hull, flavour, &["--net=default", "--egress=93.184.216.34"], &script).code
        };
        assert_eq!((fragments(World::OUTSIDE), fragments(World::PRIVATE)), (0, 1));
        run(&hull, flavour, &["--net=default", "--egress=example.com"], "true")
            .failure(&["example.com", "names"]);
        if flavour != Flavour::Kvm {
            run(&hull, flavour, &["--net=host", "--egress=none"], "true").failure(&["--egress"]);
        }
        configure(&hull, "10-bridged.conflist", &bridge(&hull));
        run(&hull, flavour, &["--net=bridged", "--egress=none"], "true").failure(&["bridged", "plugins"]);
        assert_eq!(world.host.traces(), "");
    });
}

pub(crate) fn a_pod_sends_as_fast_as_it_may(flavour: Flavour) {
    World::visit(|world| {
        let hull = Hull::new();
        let probe = std::fs::read(env!("CARGO_BIN_EXE_probe")).expect("cargo has built it");
        let limit = json!([{ "name": "resource/network-bandwidth", "value": { "limit": "8M" } }]);
        let image = Builder::standard()
            .layer(Layer::default().file("probe", 0o755, &probe))
            .app(json!({ "isolators": limit }))
            .aci();
        let mut command =
            hull.command(["run", flavour.option(), "--insecure-options=image", "--net=default"]);
        let script = "dd if=/dev/zero bs=64k count=80 | busybox nc 172.16.28.1 9; true";
        command.args([&image.reference(), "--exec=/bin/sh", "--", "-c", script]);
        let took = world.host.receive(9, 4 << 20, || {
            finish(command).success();
        });
        // A megabyte a second, after one and a quarter at once.
        assert!(took > std::time::Duration::from_secs(2), "{took:?}");
    });
}

/// Many at once, and none of them ends as it should.
pub(crate) fn pods_that_come_and_go_together_share_nothing_and_leave_nothing(flavour: Flavour) {
    const COUNT: u16 = 10;
    World::visit(|world| {
        let hull = Hull::new();
        run(&hull, flavour, &["--net=default"], "true").success();
        let start = |number: u16| {
            let port = format!("--port=80-tcp:{}", 8000 + number);
            let options = ["--net=default,default-restricted", &port];
            hull.spawn_command(command(&hull, flavour, &options, &["/probe", "serve", "80"]))
        };
        let mut pods: Vec<Started> = (0..COUNT).map(start).collect();
        // Of the first half each is up before it is killed, the others are wherever they have got to.
        let (up, others) = pods.split_at_mut(usize::from(COUNT / 2));
        up.iter_mut().for_each(|pod| pod.await_output("ready\n"));
        let all: Value =
            serde_json::from_str(&hull.hull(&["list", "--format=json"]).success()).expect("JSON");
        let networks = all.as_array().into_iter().flatten().flat_map(|pod| pod["networks"].as_array());
        let addresses: Vec<&Value> = networks.flatten().map(|network| &network["ip"]).collect();
        let different: std::collections::HashSet<&Value> = addresses.iter().copied().collect();
        assert_eq!(different.len(), addresses.len(), "{addresses:?}");
        assert!(addresses.len() >= usize::from(COUNT), "each of the first half is in two: {addresses:?}");
        for number in 0..COUNT / 2 {
            assert!(world.outside.tcp(World::HOST, 8000 + number).is_some(), "{number}");
        }
        for pod in up.iter().chain(others.iter()) {
            pod.signal(Signal::SIGKILL);
        }
        pods.into_iter().for_each(|pod| drop(pod.wait()));
        until("nothing is left", || {
            hull.collect();
            world.host.traces().is_empty()
        });
        assert_eq!(hull.pods(), Vec::<String>::new());
    });
}
