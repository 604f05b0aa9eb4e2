//! The files that the rules look at: a plain value, so that a test can plant a violation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A snapshot of the repository's text files, by path from its root (with `/`).
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    /// Every path, those of other files and of directories too: what a document may point at.
    paths: std::collections::BTreeSet<String>,
    /// The first file of each cargo target: where the compiler starts to read.
    roots: Vec<String>,
}

/// Endings of the files that are read.
const TEXT: [&str; 8] = ["rs", "md", "toml", "proto", "yml", "yaml", "sh", "txt"];

/// Directories of the root that are not the project's own text.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

impl Tree {
    /// Reads the workspace that this program was built in.
    pub(crate) fn read_workspace() -> Result<Self> {
        let root = root();
        let mut tree = Self::default();
        tree.read_directory(&root, &root)?;
        tree.roots = target_roots(&root)?;
        Ok(tree)
    }

    fn read_directory(&mut self, root: &Path, directory: &Path) -> Result<()> {
        let entries =
            std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let name = relative(root, &path)?;
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            self.paths.insert(name.clone());
            if path.is_dir() {
                self.read_directory(root, &path)?;
            } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| TEXT.contains(&e)) {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("{name} is UTF-8 text"))?;
                self.files.insert(name, text);
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// All text files, in path order.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The text files with this ending.
    pub(crate) fn with_ending<'a>(
        &'a self,
        ending: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files().filter(move |(path, _)| path.ends_with(ending))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }

    pub(crate) fn roots(&self) -> &[String] {
        &self.roots
    }
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    let inside = path.strip_prefix(root).with_context(|| path.display().to_string())?;
    Ok(inside.to_string_lossy().replace('\\', "/"))
}

fn target_roots(root: &Path) -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo metadata starts")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("metadata has packages")?;
    packages
        .iter()
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["src_path"].as_str())
        .map(|path| relative(root, Path::new(path)))
        .collect()
}

#[cfg(test)]
impl Tree {
    /// A tree of the given files; `roots` are where the compiler starts.
    pub(crate) fn planted(files: &[(&str, &str)], roots: &[&str]) -> Self {
        let mut tree =
            Self { roots: roots.iter().map(|r| (*r).to_owned()).collect(), ..Self::default() };
        for (path, text) in files {
            tree.files.insert((*path).to_owned(), (*text).to_owned());
            let mut prefix = String::new();
            for part in path.split('/') {
                prefix.push_str(part);
                tree.paths.insert(prefix.clone());
                prefix.push('/');
            }
        }
        tree
    }
}
