//! What runs that were killed have left on this machine: containers, networks, volumes and mounted disks. All of them
//! carry the number of their process in their names; what belongs to a living one is left alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::disk::unmount;
use crate::containers::docker;

/// How the names of compose projects and directories of chaos runs begin; the number of the process follows.
pub(crate) const PREFIX: &str = "triad-chaos";
/// What compose labels everything with.
const LABEL: &str = "com.docker.compose.project";

/// The directory of this process for disks, gone when dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes it.
    pub fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{PREFIX}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed now is a leftover, and the next run tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes it all; answers the names of what was found.
pub fn remove() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (kind, listing, removal) in [
        ("container", &["ps", "--all"][..], &["rm", "--force", "--volumes"][..]),
        ("network", &["network", "ls"], &["network", "rm"]),
        ("volume", &["volume", "ls"], &["volume", "rm", "--force"]),
    ] {
        for (id, project) in labelled(listing, kind)? {
            if is_left(&project) {
                docker(&[removal, &[id.as_str()]].concat())?;
                found.push(format!("{kind} of {project}"));
            }
        }
    }
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_left(&name) {
            unmount_below(&entry.path())?;
            fs::remove_dir_all(entry.path())?;
            found.push(name);
        }
    }
    Ok(found)
}

/// Ids of everything of a kind that compose has made, each with its project.
fn labelled(listing: &[&str], kind: &str) -> Result<Vec<(String, String)>> {
    let id = if kind == "volume" { "{{.Name}}" } else { "{{.ID}}" };
    let (filter, format) = (format!("label={LABEL}"), format!("{id} {{{{.Label {LABEL:?}}}}}"));
    let listed = docker(&[listing, &["--filter", &filter, "--format", &format]].concat())?;
    let words = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(words.map(|(id, project)| (id.to_owned(), project.to_owned())).collect())
}

/// Whether this is the name of something that a chaos run made whose process has ended.
fn is_left(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'));
    let process = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    places.filter(|place| place.starts_with(directory)).try_for_each(unmount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_run_has_made_is_left() {
        let own = std::process::id();
        assert!(!is_left(&format!("{PREFIX}-{own}-0")), "this process lives");
        // The greatest number of a process on Linux is smaller.
        assert!(is_left(&format!("{PREFIX}-99999999-0")) && is_left(&format!("{PREFIX}-99999999")));
        for other in ["triad", "triad-test-99999999-0", "triad-chaos", "triad-chaos-x"] {
            assert!(!is_left(other), "{other}");
        }
    }
}
