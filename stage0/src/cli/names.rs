//! The names a pod knows others by: `/etc/resolv.conf` and `/etc/hosts`.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;

/// What they are to say.
#[derive(Debug, Default, Args)]
pub(crate) struct NameArgs {
    /// Name servers of the pod; or those of the host; or none, for what the images say
    #[arg(long, value_name = "IP,...|host|none", value_delimiter = ',')]
    pub(crate) dns: Vec<Dns>,
    /// Domains in which short names are looked for
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',', value_parser = word)]
    pub(crate) dns_search: Vec<String>,
    /// Options of resolv.conf(5)
    #[arg(long, value_name = "OPTION", value_delimiter = ',', value_parser = word)]
    pub(crate) dns_opt: Vec<String>,
    /// The pod's own domain
    #[arg(long, value_name = "DOMAIN", value_parser = word)]
    pub(crate) dns_domain: Option<String>,
    /// Lines of the pod's /etc/hosts; or the host's file
    #[arg(long, value_name = "IP=NAME,...|host", value_delimiter = ',')]
    pub(crate) hosts_entry: Vec<HostsEntry>,
}

impl NameArgs {
    /// Nothing about name servers, not even that there shall be none: others may.
    pub(crate) fn says_nothing(&self) -> bool {
        self.dns.is_empty()
            && self.dns_search.is_empty()
            && self.dns_opt.is_empty()
            && self.dns_domain.is_none()
    }
}

/// A name server, or where to take them from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    Server(IpAddr),
    Host,
    None,
}

impl FromStr for Dns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::Server).map_err(|_| "must be an IP address, host or none".into()),
        }
    }
}

/// A line of hosts(5), or the whole file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostsEntry {
    Host,
    Line(IpAddr, String),
}

impl FromStr for HostsEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "host" {
            return Ok(Self::Host);
        }
        let wrong = || "must be IP=NAME, or host".to_owned();
        let (ip, name) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self::Line(ip.parse().map_err(|_| wrong())?, word(name)?))
    }
}

/// One word of a file that is made of lines of words.
fn word(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        true => Ok(text.to_owned()),
        false => Err("must be one word".into()),
    }
}
