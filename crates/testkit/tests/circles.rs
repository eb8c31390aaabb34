//! Modules that need each other in a circle can only be read, moved and tested together: a circle is small.
//!
//! A module needs another one if it names it, in a `use` or in a path. The root of a crate is its door, and names what
//! it shows; and what a module declares below itself is its inside: neither is counted.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// *Limit* of modules in one circle.
const CIRCLE_MAX: usize = 3;

type Module = Vec<String>;
type Needs = BTreeMap<Module, BTreeSet<Module>>;

/// Returns the files of a crate, by module.
fn modules(src: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(src.to_owned(), Module::new())];
    while let Some((folder, above)) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let mut module = above.clone();
            if path.is_dir() {
                if name != "bin" && name != "tests" {
                    module.push(name);
                    waiting.push((path, module));
                }
            } else if path.extension().is_some_and(|e| e == "rs") && name != "tests" {
                if !["lib", "main", "mod"].contains(&name.as_str()) {
                    module.push(name);
                }
                found.insert(module, path);
            }
        }
    }
    found
}

/// Collects the paths that begin with `crate`, `self` or `super`, without those in tests.
fn paths(tokens: TokenStream, found: &mut Vec<Module>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(mark) if mark.as_char() == '#' && is_for_tests(tokens.get(at + 1)) => {
                // What it stands before ends with braces or a semicolon.
                at += 2;
                while at < tokens.len() && !ends_an_item(&tokens[at]) {
                    at += 1;
                }
            }
            // Who may see it is no path.
            TokenTree::Ident(word)
                if word == "pub" && matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) =>
            {
                at += 1;
            }
            TokenTree::Ident(first) if first == "crate" || first == "self" || first == "super" => {
                at = path(&tokens, at, Vec::new(), found);
                continue;
            }
            TokenTree::Group(group) => paths(group.stream(), found),
            _ => {}
        }
        at += 1;
    }
}

fn is_for_tests(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

fn ends_an_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    }
}

/// Follows one path from `at`, with the tree of a `use` behind it; returns where it ends.
fn path(tokens: &[TokenTree], mut at: usize, mut above: Module, found: &mut Vec<Module>) -> usize {
    let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => above.push(name.to_string()),
            Some(TokenTree::Group(tree)) if tree.delimiter() == Delimiter::Brace => {
                let inside: Vec<TokenTree> = tree.stream().into_iter().collect();
                let is_comma = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == ',');
                for branch in inside.split(is_comma).filter(|branch| !branch.is_empty()) {
                    path(branch, 0, above.clone(), found);
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if !(is_colon(at) && is_colon(at + 1)) {
            break;
        }
        at += 2;
    }
    found.push(above);
    at
}

/// Returns the module that a path of `from` leads into.
fn meant(from: &Module, path: &[String], modules: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut full = if path[0] == "crate" { Module::new() } else { from.clone() };
    for name in path.iter().filter(|name| *name != "crate" && *name != "self") {
        if name == "super" {
            full.pop();
        } else {
            full.push(name.clone());
        }
    }
    while !full.is_empty() && !modules.contains_key(&full) {
        full.pop();
    }
    let is_inside = full.len() > from.len() && full.starts_with(from);
    (!full.is_empty() && full != *from && !is_inside).then_some(full)
}

fn needs(src: &Path) -> Needs {
    let modules = modules(src);
    let mut needs = Needs::new();
    for (module, file) in modules.iter().filter(|(module, _)| !module.is_empty()) {
        let text = std::fs::read_to_string(file).expect("a readable file");
        let mut named = Vec::new();
        paths(text.parse().unwrap_or_else(|e| panic!("{}: {e}", file.display())), &mut named);
        let all = named.iter().filter_map(|path| meant(module, path, &modules));
        needs.insert(module.clone(), all.collect());
    }
    needs
}

fn reached(needs: &Needs, from: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![from.clone()];
    while let Some(module) = waiting.pop() {
        for next in needs.get(&module).into_iter().flatten() {
            if found.insert(next.clone()) {
                waiting.push(next.clone());
            }
        }
    }
    found
}

/// Returns the largest circle of a crate.
fn largest_circle(needs: &Needs) -> BTreeSet<Module> {
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        needs.keys().map(|module| (module, reached(needs, module))).collect();
    let circle = |module: &Module| -> BTreeSet<Module> {
        let there = reached[module].iter();
        there.filter(|other| reached.get(other).is_some_and(|back| back.contains(module))).cloned().collect()
    };
    needs.keys().map(circle).max_by_key(BTreeSet::len).unwrap_or_default()
}

#[test]
fn no_circle_of_modules_is_large() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(crates).expect("the crates") {
        let folder = entry.expect("a readable entry").path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let needs = needs(&folder.join("src"));
        let circle = largest_circle(&needs);
        println!("{name}: {}", circle.len());
        if circle.len() > CIRCLE_MAX {
            faults.push(format!("{name}: {} modules need each other", circle.len()));
            for module in &circle {
                let others = needs[module].intersection(&circle).map(|other| other.join("::"));
                faults.push(format!("    {} -> {}", module.join("::"), others.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_circle_is_seen_through_uses_paths_and_macros_but_not_through_tests() {
    let all = |text: &str| {
        let mut found = Vec::new();
        paths(text.parse().expect("tokens"), &mut found);
        found.into_iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    let text = "use crate::{a::{self, B}, c}; fn f() { warn!(\"{}\", super::d::e()); } \
                #[cfg(test)] mod tests { use crate::g; } pub(super) fn h() -> crate::i::J { self.k }";
    let wanted = ["crate::a::self", "crate::a::B", "crate::c", "super::d::e", "crate::i::J", "self"];
    assert_eq!(all(text), wanted);

    let module = |name: &str| vec![name.to_owned()];
    let arrows = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")];
    let mut needs = Needs::new();
    for (from, to) in arrows {
        needs.entry(module(from)).or_default().insert(module(to));
    }
    assert_eq!(largest_circle(&needs), ["a", "b", "c"].map(module).into());
}
