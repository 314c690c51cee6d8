//! The VMM alone, with a Linux in it that does what a script says: devices before hull makes use of them.

mod kvm {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpListener};
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use hull_tests::hull::binaries;
    use hull_vmm::{Asked, Halt, HostFiles, InitramfsFile, Machine, Net, VmConfig, open_tap};
    use nix::sched::{CloneFlags, unshare};
    use sha2::{Digest, Sha256};

    const BUSYBOX: &str = "/bin/busybox";
    /// Before the script: programs by their names, and `say`, which writes to the console.
    const PRELUDE: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /tmp /sys
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
say() { echo \"$@\" > /dev/console; }
";

    fn asked(script: &str, console: Option<File>) -> Asked {
        let program = |path: &str, file| InitramfsFile { path: path.into(), mode: 0o755, file };
        let mut init = tempfile::tempfile().unwrap();
        write!(init, "{PRELUDE}{script}\nsay done\nreboot -f\n").unwrap();
        Asked {
            host: HostFiles::open().expect("the host's KVM"),
            vcpus: 1,
            ram_mib: 256,
            kernel: File::open(binaries().join("vmlinux")).unwrap(),
            initramfs: vec![program("init", init), program("bin/busybox", File::open(BUSYBOX).unwrap())],
            cmdline: String::new(),
            disks: vec![],
            vsock: None,
            rng: true,
            net: vec![],
            console,
        }
    }

    /// Runs the guest to its end; what it said.
    fn run(script: &str, change: impl FnOnce(&mut Asked), add: impl FnOnce(VmConfig) -> VmConfig) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let mut asked = asked(script, Some(File::create(&path).unwrap()));
        change(&mut asked);
        let config = add(VmConfig::try_from(asked).unwrap());
        let machine = Machine::new(config).unwrap().load().unwrap();
        let halt = machine.boot().unwrap().wait();
        let said = fs::read_to_string(&path).unwrap().replace('\r', "");
        // A guest that ends by a reboot.
        assert!(halt == Halt::Reset && said.contains("\ndone\n"), "{halt:?}: {said}");
        said
    }

    /// How much of the guest's RAM is there, by the size of its mapping: MiB.
    fn resident(ram_mib: u32) -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let field = |lines: &str, name: &str| -> Option<u64> {
            let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        // Each mapping's lines end with its flags.
        let ours =
            maps.split("VmFlags:").filter(|lines| field(lines, "Size:") == Some(u64::from(ram_mib) << 10));
        ours.map(|lines| field(lines, "Rss:").unwrap() >> 10).sum()
    }

    const DEADLINE: Duration = Duration::from_secs(120);

    #[test]
    fn memory_that_a_guest_has_freed_goes_back_to_the_host() {
        // No other machine has that much.
        let ram_mib = 251;
        let mut asked = asked("dd if=/dev/zero of=/tmp/data bs=1M count=120; rm /tmp/data; sleep 1000", None);
        asked.ram_mib = ram_mib;
        let config = VmConfig::try_from(asked).unwrap().with_balloon(0).unwrap();
        let machine = Machine::new(config).unwrap().load().unwrap().boot().unwrap();
        let (start, mut most) = (Instant::now(), 0);
        loop {
            let now = resident(ram_mib);
            most = most.max(now);
            if 120 <= most && now + 100 <= most {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "{now} MiB of at most {most} are still there");
            thread::sleep(Duration::from_millis(100));
        }
        machine.stopper().stop();
        assert_eq!(machine.wait(), Halt::Stopped);
    }

    #[test]
    fn a_balloon_takes_what_was_asked_for_and_gives_it_back_in_need() {
        let ram_mib = 249;
        let script = "
            available() { awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo; }
            n=0; while [ $(available) -gt 120 ] && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.1; done
            say left $(available)
            mount -t tmpfs -o size=180m big /tmp
            dd if=/dev/zero of=/tmp/data bs=1M count=150 && say fits";
        let said = run(script, |asked| asked.ram_mib = ram_mib, |config| config.with_balloon(100).unwrap());
        assert!(said.contains("\nfits\n"), "{said}");
        let left = said.lines().find_map(|line| line.strip_prefix("left ")).unwrap();
        assert!(left.parse::<u32>().unwrap() <= 120, "{said}");
    }

    /// From here on this thread, what it starts and the sockets that it makes are in a network of their own.
    fn leave_the_network() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
    }

    fn ip(words: &str) {
        let status = Command::new(BUSYBOX).arg("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    }

    /// Bytes and packets of an interface of this thread's network: received, then sent.
    fn traffic(interface: &str) -> [(u64, u64); 2] {
        let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        [(numbers[0], numbers[1]), (numbers[8], numbers[9])]
    }

    const HOST: &str = "10.9.0.1";
    const HOST_IPV6: &str = "fd00:9::1";
    const MIB: usize = 1 << 20;

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(count)
        .collect()
    }

    fn sum(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Hears one connection out, then answers another one with `answer`; what was heard.
    fn serve(address: IpAddr, answer: Vec<u8>) -> thread::JoinHandle<Vec<u8>> {
        let hear = TcpListener::bind((address, 7000)).unwrap();
        let tell = TcpListener::bind((address, 7001)).unwrap();
        thread::spawn(move || {
            let mut heard = Vec::new();
            hear.accept().unwrap().0.read_to_end(&mut heard).unwrap();
            tell.accept().unwrap().0.write_all(&answer).unwrap();
            heard
        })
    }

    #[test]
    fn a_guest_and_its_host_talk_through_a_tap() {
        leave_the_network();
        let tap = open_tap("tap0").unwrap();
        ip(&format!("addr add {HOST}/24 dev tap0"));
        // Nobody else is there whose address it could be.
        fs::write("/proc/sys/net/ipv6/conf/tap0/accept_dad", "0").unwrap();
        ip(&format!("addr add {HOST_IPV6}/64 dev tap0"));
        ip("link set tap0 up");
        let answers = [bytes(4 * MIB, 1), bytes(4 * MIB, 2)];
        let servers = [HOST, HOST_IPV6].map(|address| address.parse().unwrap());
        let servers: Vec<_> = servers
            .into_iter()
            .zip(answers.clone())
            .map(|(address, answer)| serve(address, answer))
            .collect();
        let script = format!(
            "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu > /dev/console
            ip addr add 10.9.0.2/24 dev eth0
            echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
            ip addr add fd00:9::2/64 dev eth0
            ip link set eth0 up
            ping -c 3 -s 1400 {HOST} > /dev/console
            ping -c 3 {HOST_IPV6} > /dev/console
            dd if=/dev/urandom of=/tmp/data bs=64k count=64 2> /dev/null
            say sent $(sha256sum < /tmp/data)
            for host in {HOST} {HOST_IPV6}; do
                nc $host 7000 -e cat /tmp/data
                say got $(nc $host 7001 < /dev/null | sha256sum)
            done"
        );
        // It outlives the machine, and so do its counters.
        let _held = tap.try_clone().unwrap();
        let net = Net { tap, mac: [2, 0x11, 0x22, 0x33, 0x44, 0x55], mtu: Some(1400) };
        let said = run(&script, |asked| asked.net = vec![net], |config| config);
        assert!(said.contains("02:11:22:33:44:55\n1400\n"), "{said}");
        assert_eq!(said.matches("3 packets received").count(), 2, "{said}");
        let words = |word: &str| -> Vec<&str> {
            said.lines().filter_map(|line| line.strip_prefix(word)?.split_whitespace().next()).collect()
        };
        let heard: Vec<_> = servers.into_iter().map(|server| sum(&server.join().unwrap())).collect();
        assert_eq!(heard, [words("sent")[0], words("sent")[0]], "{said}");
        assert_eq!(words("got"), answers.each_ref().map(|answer| sum(answer)), "{said}");
        // Both ways in frames far above the MTU: each side leaves the splitting to the other.
        for (bytes, packets) in traffic("tap0") {
            assert!(8 * MIB as u64 <= bytes && 4096 < bytes / packets, "{bytes} bytes in {packets} frames");
        }
    }
}
