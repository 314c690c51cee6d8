//! What a pod could leave behind on the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Everything that mentions a data directory or a pod: processes, mounts, cgroups, loop devices.
pub fn of(data: &Path, pod: &str) -> BTreeSet<String> {
    let data = data.display().to_string();
    let mut found = BTreeSet::new();
    found.extend(processes(&data, pod));
    found.extend(lines("/proc/self/mountinfo", &data).map(|line| format!("mount {line}")));
    found.extend(cgroups(pod));
    found.extend(loops(&data));
    found
}

fn lines(file: &str, word: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let word = word.to_owned();
    text.lines().filter(move |line| line.contains(&word)).map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Processes whose command line names the pod, or whose root, working directory or mounts are the pod's.
fn processes(data: &str, pod: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.parse::<u32>().is_ok());
    pids.filter(|pid| *pid != own)
        .filter_map(|pid| {
            let dir = Path::new("/proc").join(&pid);
            let command = fs::read(dir.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let link = |name: &str| {
                fs::read_link(dir.join(name)).map(|p| p.display().to_string()).unwrap_or_default()
            };
            let theirs = command.contains(pod) || link("cwd").contains(data) || link("root").contains(data);
            let mounts = fs::read_to_string(dir.join("mounts")).unwrap_or_default();
            let inside = !command.contains("hull-test") && mounts.lines().any(|line| line.contains(pod));
            // A zombie holds nothing; its parent, which may be the test, has yet to look.
            let zombie = fs::read_to_string(dir.join("stat")).unwrap_or_default().contains(") Z ");
            ((theirs || inside) && !zombie).then(|| format!("process {pid} {command}"))
        })
        .collect()
}

fn cgroups(pod: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(dir) = left.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        for path in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().contains(pod)) {
                found.push(format!("cgroup {}", path.display()));
            }
            left.push(path);
        }
    }
    found
}

fn loops(data: &str) -> Vec<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter_map(|e| {
            let file = fs::read_to_string(e.path().join("loop/backing_file")).ok()?;
            file.contains(data).then(|| format!("loop device {} on {file}", e.path().display()))
        })
        .collect()
}
