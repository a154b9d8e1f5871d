//! Programs of others that ours is held against: Debian's packages, taken apart into the cache. Nothing is installed, and the
//! system's own list of sources stays as it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tools;

/// Where Debian keeps its packages.
const MIRROR: &str = "http://deb.debian.org/debian";
/// How long a package may take to come.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// HashiCorp Consul 1.8.7, the last that Debian had.
pub const CONSUL: Package = Package { name: "consul", suite: "bullseye", program: "usr/bin/consul", libraries: &[] };
/// etcd 3.5.
pub const ETCD: Package = Package { name: "etcd-server", suite: "trixie", program: "usr/bin/etcd", libraries: &[] };
/// BIND's `dig`, with the libraries that not every machine has.
pub const DIG: Package = Package {
    name: "bind9-dnsutils",
    suite: "bookworm",
    program: "usr/bin/dig",
    libraries: &[
        "bind9-libs",
        "libedit2",
        "libfstrm0",
        "libgssapi-krb5-2",
        "libidn2-0",
        "libjemalloc2",
        "libjson-c5",
        "libkrb5-3",
        "liblmdb0",
        "libmaxminddb0",
        "libnghttp2-14",
        "libprotobuf-c1",
        "libuv1",
        "libxml2",
    ],
};

/// DNS-OARC's `dnsperf`, with the libraries that not every machine has.
pub const DNSPERF: Package = Package {
    name: "dnsperf",
    suite: "bookworm",
    program: "usr/bin/dnsperf",
    libraries: &["libldns3", "libnghttp2-14"],
};

/// HashiCorp Serf 0.9.4.
pub const SERF: Package = Package { name: "serf", suite: "bookworm", program: "usr/bin/serf", libraries: &[] };

/// A package, and the program in it.
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The release of Debian that has it.
    pub suite: &'static str,
    /// Where in the package the program lies.
    pub program: &'static str,
    /// Packages of libraries that it needs beside those of any system.
    pub libraries: &'static [&'static str],
}

impl Package {
    /// The program in the cache, downloaded the first time; or why it cannot be had.
    pub fn program(&self, cache: &Path) -> Result<PathBuf, String> {
        let home = cache.join(self.name);
        let program = home.join("root").join(self.program);
        if !program.exists() {
            self.download(&home).map_err(|error| format!("Debian's package {}: {error}", self.name))?;
        }
        Ok(program)
    }

    /// A command that runs it with its libraries: the system's own program where there is one, so that nothing is downloaded.
    pub fn command(&self, cache: &Path) -> Result<Command, String> {
        let installed = Path::new("/").join(self.program);
        if installed.exists() {
            return Ok(Command::new(installed));
        }
        let mut command = Command::new(self.program(cache)?);
        let root = cache.join(self.name).join("root");
        let places =
            ["lib", "usr/lib"].map(|place| root.join(place).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
        let places = std::env::join_paths(places).map_err(|error| error.to_string())?;
        command.env("LD_LIBRARY_PATH", places);
        Ok(command)
    }

    fn download(&self, home: &Path) -> Result<(), String> {
        let apt = home.join("apt");
        for directory in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(apt.join(directory)).map_err(|error| error.to_string())?;
        }
        let sources = apt.join("sources.list");
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        std::fs::write(&sources, format!("deb [signed-by={keyring}] {MIRROR} {} main\n", self.suite))
            .map_err(|error| error.to_string())?;
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".into(),
            format!("Dir::State::lists={}", apt.join("lists").display()),
            format!("Dir::Cache={}", apt.display()),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ];
        let download: Vec<&str> = ["download", "-q", self.name].iter().chain(self.libraries).copied().collect();
        for verb in [["update", "-q"].as_slice(), &download] {
            let mut command = Command::new("apt-get");
            command.current_dir(home).args(options.iter().flat_map(|option| ["-o", option])).args(verb);
            tools::run(&mut command, DOWNLOAD_LIMIT)?;
        }
        let packages: Vec<PathBuf> = std::fs::read_dir(home)
            .map_err(|error| error.to_string())?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "deb"))
            .collect();
        if packages.len() <= self.libraries.len() {
            return Err(format!("apt-get downloaded {} packages", packages.len()));
        }
        // Unpacked beside, then renamed: a half unpacked one is never taken for the whole.
        let (fresh, root) = (home.join("unpacking"), home.join("root"));
        for package in &packages {
            tools::run(Command::new("dpkg-deb").arg("-x").args([package, &fresh]), DOWNLOAD_LIMIT)?;
        }
        std::fs::rename(&fresh, &root).map_err(|error| format!("{}: {error}", root.display()))
    }
}
