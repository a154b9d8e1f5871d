//! `/v1/agent/monitor`: the log as it is written, and `/v1/agent/host`: what this machine is.

use std::path::Path;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use lictor_runtime::logs::{LISTENERS_MAX, Line, Listener, Missed};
use lictor_types::refusal::RefusalKind;
use lictor_types::{Refusal, Requirement, Resource, Timestamp};
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use super::caller::Caller;
use super::failure::{Answered, text};

/// How much of a file below `/proc` is read.
const PROC_BYTES_MAX: usize = 256 * 1024;

fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_uppercase().as_str() {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" => LevelFilter::WARN,
        "ERR" | "ERROR" => LevelFilter::ERROR,
        _ => return None,
    })
}

/// `GET /v1/agent/monitor?loglevel=LEVEL&logjson`.
pub(super) async fn monitor(caller: Caller) -> Answered {
    let agent = &caller.door.agent;
    caller.require(Requirement::read(Resource::Agent, agent.identity.node_name.as_str())).await?;
    let name = caller.params.text("loglevel").unwrap_or("INFO");
    let Some(level) = level(name) else {
        return Ok(text(StatusCode::BAD_REQUEST, format!("Unknown log level: {name}")));
    };
    let as_json = caller.params.flag("logjson")?;
    let Some(listener) = Listener::new(level) else {
        let text = format!("{LISTENERS_MAX} readers follow the log of this agent already");
        return Err(Refusal::new(RefusalKind::TooMany, text).into());
    };
    let lines = stream::unfold((listener, caller), move |(mut listener, caller)| async move {
        let heard = listener.next().await;
        let now = Timestamp::from(caller.door.agent.clock.now());
        let bytes = written(now, &heard, as_json);
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), (listener, caller)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// A line as Consul writes it.
fn written(now: Timestamp, heard: &Result<Line, Missed>, as_json: bool) -> String {
    let (level, target, message) = match heard {
        Ok(line) => (line.level.as_str(), line.target, line.message.to_string()),
        Err(Missed(count)) => {
            ("WARN", "monitor", format!("{count} lines were dropped: they came faster than they were read"))
        }
    };
    let module = target.replace("lictor_", "").replace("::", ".");
    let now = format!("{}.{:03}Z", now.to_rfc3339().trim_end_matches('Z'), now.0 % 1000);
    if as_json {
        let line = json!({
            "@level": level.to_ascii_lowercase(), "@message": message, "@module": module, "@timestamp": now,
        });
        return format!("{line}\n");
    }
    format!("{now} {:<7} {module}: {message}\n", format!("[{level}]"))
}

/// `GET /v1/agent/host`: what the operating system says of this machine, without what could be secret.
pub(super) async fn host(caller: Caller) -> Answered {
    caller.require(Requirement::read(Resource::Operator, "")).await?;
    let now = Timestamp::from(caller.door.agent.clock.now());
    let data_dir = caller.door.agent.config.load().data_dir.clone();
    caller.json(&described(now, data_dir.as_deref()))
}

/// The file system that `path` is on, as Consul shows that of `/`.
fn disk(path: &Path) -> Option<Value> {
    let found = rustix::fs::statvfs(path).ok()?;
    let (total, free, available) =
        (found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize, found.f_bavail * found.f_frsize);
    let (inodes, inodes_free) = (found.f_files, found.f_ffree);
    let (used, inodes_used) = (total.saturating_sub(free), inodes.saturating_sub(inodes_free));
    let percent = |part: u64, whole: u64| if whole > 0 { part as f64 * 100.0 / whole as f64 } else { 0.0 };
    // What only root may use counts neither as used nor as free.
    Some(json!({
        "path": path.display().to_string(), "fstype": file_system(path, &proc_file("/proc/self/mounts")),
        "total": total, "free": available, "used": used, "usedPercent": percent(used, used + available),
        "inodesTotal": inodes, "inodesUsed": inodes_used, "inodesFree": inodes_free,
        "inodesUsedPercent": percent(inodes_used, inodes),
    }))
}

/// The kind of the file system that is mounted nearest above `path`.
fn file_system(path: &Path, mounts: &str) -> String {
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    // Of two at one place the later one is seen.
    let nearest = mounted.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len());
    nearest.map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

fn proc_file(path: &str) -> String {
    let mut text = std::fs::read_to_string(path).unwrap_or_default();
    text.truncate(text.floor_char_boundary(PROC_BYTES_MAX));
    text
}

fn described(now: Timestamp, data_dir: Option<&Path>) -> Value {
    let memory = proc_file("/proc/meminfo");
    let bytes_of = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or_default() * 1024
    };
    let (total, available) = (bytes_of("MemTotal"), bytes_of("MemAvailable"));
    let used = total.saturating_sub(available);
    let cpus: Vec<Value> = proc_file("/proc/cpuinfo").split("\n\n").filter_map(cpu).collect();
    let uptime: f64 = proc_file("/proc/uptime").split(' ').next().and_then(|it| it.parse().ok()).unwrap_or_default();
    let kernel = |name: &str| proc_file(&format!("/proc/sys/kernel/{name}")).trim().to_owned();
    json!({
        "Memory": {
            "total": total, "available": available, "used": used,
            "usedPercent": if total > 0 { used as f64 * 100.0 / total as f64 } else { 0.0 },
            "free": bytes_of("MemFree"), "buffers": bytes_of("Buffers"), "cached": bytes_of("Cached"),
        },
        "CPU": cpus,
        "Host": {
            "hostname": kernel("hostname"), "os": std::env::consts::OS, "kernelVersion": kernel("osrelease"),
            "kernelArch": std::env::consts::ARCH, "uptime": uptime as u64,
            "bootTime": (now.0 / 1000).saturating_sub(uptime as u64),
        },
        "Disk": disk(Path::new("/")),
        "DataDisk": data_dir.and_then(disk),
        "CollectionTime": now.0 * 1_000_000,
        "Errors": null,
    })
}

fn cpu(block: &str) -> Option<Value> {
    let of = |name: &str| {
        let line = block.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let number: u64 = of("processor")?.parse().ok()?;
    Some(json!({
        "cpu": number, "vendorId": of("vendor_id"), "modelName": of("model name"),
        "mhz": of("cpu MHz").and_then(|it| it.parse::<f64>().ok()), "cores": 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw 0 0\ntmpfs /data/run tmpfs rw 0 0\n";
        let kind = |path: &str| file_system(Path::new(path), mounts);
        assert_eq!(
            [kind("/"), kind("/data/x"), kind("/data/run/y"), kind("/database")],
            ["ext4", "xfs", "tmpfs", "ext4"]
        );
        let shown = disk(Path::new("/")).unwrap();
        let number = |name: &str| shown[name].as_u64().unwrap();
        assert!(
            number("total") >= number("used") && number("total") > 0 && shown["usedPercent"].as_f64().unwrap() <= 100.0
        );
        assert_eq!(disk(Path::new("/no such place")), None);
    }

    #[test]
    fn lines_are_written_as_consul_writes_them() {
        let line = Line { level: tracing::Level::INFO, target: "lictor_server::raft", message: "hello x=1".into() };
        let now = Timestamp(1_795_367_100_123);
        assert_eq!(written(now, &Ok(line.clone()), false), "2026-11-22T17:05:00.123Z [INFO]  server.raft: hello x=1\n");
        let as_json: Value = serde_json::from_str(&written(now, &Ok(line), true)).unwrap();
        assert_eq!(as_json["@level"], "info");
        assert!(written(now, &Err(Missed(7)), false).contains("[WARN]  monitor: 7 lines were dropped"));
    }

    #[test]
    fn levels_are_known_by_consuls_names() {
        assert_eq!((level("debug"), level("err")), (Some(LevelFilter::DEBUG), Some(LevelFilter::ERROR)));
        assert_eq!(level("loud"), None);
    }
}
