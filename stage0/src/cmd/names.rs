//! The text of a pod's `/etc/resolv.conf` and `/etc/hosts`.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;

use hull_errors::Doing;
use hull_pod::Flavour;

use crate::cli::names::{Dns, HostsEntry, NameArgs};
use crate::{Error, Kind};

/// Longest file of the host's that is passed on, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// `None`: the image's own.
pub(super) fn resolver(args: &NameArgs) -> Result<Option<String>, Error> {
    let NameArgs { dns, dns_search, dns_opt, dns_domain, .. } = args;
    let more = !dns_search.is_empty() || !dns_opt.is_empty() || dns_domain.is_some();
    match dns.as_slice() {
        [] if !more => return Ok(None),
        [Dns::None] if !more => return Ok(None),
        [Dns::Host] if !more => return of_host("/etc/resolv.conf").map(Some),
        _ => (),
    }
    let mut text = String::new();
    for dns in dns {
        let Dns::Server(ip) = dns else {
            let why = "--dns=host and --dns=none stand alone, without other --dns options";
            return Err(Error::new(Kind::User, why));
        };
        let _ = writeln!(text, "nameserver {ip}"); // Text grows without end.
    }
    let lists = [("domain", dns_domain.as_slice()), ("search", dns_search), ("options", dns_opt)];
    for (word, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(text, "{word} {}", list.join(" "));
    }
    Ok(Some(text))
}

/// `None`: the image's, else the loopback names.
pub(super) fn hosts(args: &NameArgs, flavour: Flavour, hostname: &str) -> Result<Option<String>, Error> {
    match args.hosts_entry.as_slice() {
        [] => return Ok(None),
        [HostsEntry::Host] => return of_host("/etc/hosts").map(Some),
        _ => (),
    }
    // A chroot has no host name of its own.
    let name = if flavour == Flavour::Fly { String::new() } else { format!(" {hostname}") };
    let mut text = format!("127.0.0.1\tlocalhost{name}\n::1\tlocalhost{name}\n");
    for entry in &args.hosts_entry {
        let HostsEntry::Line(ip, name) = entry else {
            return Err(Error::new(Kind::User, "--hosts-entry=host stands alone, without other entries"));
        };
        let _ = writeln!(text, "{ip}\t{name}");
    }
    Ok(Some(text))
}

fn of_host(path: &str) -> Result<String, Error> {
    let doing = || format!("pass on the host's {path}");
    let mut text = String::new();
    let mut file = File::open(path).doing(Kind::Host, doing)?.take(FILE_MAX + 1);
    file.read_to_string(&mut text).doing(Kind::Host, doing)?;
    match text.len() as u64 > FILE_MAX {
        true => Err(Error::new(Kind::Host, format!("{}: longer than {FILE_MAX} bytes", doing()))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        names: NameArgs,
    }

    fn names(words: &[&str]) -> NameArgs {
        Line::parse_from([&["x"], words].concat()).names
    }

    #[test]
    fn a_resolver_is_written_line_by_line() {
        let args = names(&["--dns=10.0.0.1,::1", "--dns-search=a,b", "--dns-opt=ndots:2", "--dns-domain=d"]);
        let want = "nameserver 10.0.0.1\nnameserver ::1\ndomain d\nsearch a b\noptions ndots:2\n";
        assert_eq!(resolver(&args).unwrap().as_deref(), Some(want));
        assert_eq!(resolver(&names(&["--dns=none"])).unwrap(), None);
        assert_eq!(resolver(&names(&[])).unwrap(), None);
        for wrong in [&["--dns=host,10.0.0.1"][..], &["--dns=none", "--dns-search=a"]] {
            assert!(resolver(&names(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn hosts_have_the_pod_and_the_entries() {
        let args = names(&["--hosts-entry=10.0.0.1=db,10.0.0.2=web", "--hosts-entry=::2=six"]);
        let want = "127.0.0.1\tlocalhost pod\n::1\tlocalhost pod\n10.0.0.1\tdb\n10.0.0.2\tweb\n::2\tsix\n";
        assert_eq!(hosts(&args, Flavour::Kvm, "pod").unwrap().as_deref(), Some(want));
        assert!(hosts(&names(&["--hosts-entry=host,::1=x"]), Flavour::Fly, "").is_err());
        assert_eq!(hosts(&names(&[]), Flavour::Fly, "").unwrap(), None);
    }

    #[test]
    fn what_would_break_a_line_is_no_name() {
        for wrong in
            ["--dns=nine", "--dns-search=a b", "--hosts-entry=1.2.3.4", "--hosts-entry=x=y", "--dns-opt=a\nb"]
        {
            assert!(Line::try_parse_from(["x", wrong]).is_err(), "{wrong}");
        }
    }
}
