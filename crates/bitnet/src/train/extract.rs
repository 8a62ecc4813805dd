//! Taking prose out of Rust sources, Markdown and HTML.

use std::path::Path;

/// The documents of one file, each as paragraphs; what is taken depends on the ending of its name.
pub(super) fn paragraphs_of_file(path: &Path, text: &str) -> Vec<Vec<String>> {
    let name = path.to_string_lossy().to_ascii_lowercase();
    if name.ends_with(".rs.html") {
        doc_comments(&strip_source_page(text))
            .iter()
            .map(|b| markdown_paragraphs(b))
            .collect()
    } else if name.ends_with(".rs") {
        doc_comments(text)
            .iter()
            .map(|b| markdown_paragraphs(b))
            .collect()
    } else if name.ends_with(".html") {
        vec![html_paragraphs(text)]
    } else {
        vec![markdown_paragraphs(
            &text.lines().map(str::to_owned).collect::<Vec<_>>(),
        )]
    }
}

/// The runs of `///` and `//!` lines of a Rust source file, without the markers.
pub fn doc_comments(source: &str) -> Vec<Vec<String>> {
    let (mut blocks, mut block, mut marker) = (Vec::new(), Vec::new(), "");
    for line in source.lines() {
        let line = line.trim_start();
        let this = if line.starts_with("//!") {
            "//!"
        } else if line.starts_with("///") && !line.starts_with("////") {
            "///"
        } else {
            ""
        };
        if this != marker && !block.is_empty() {
            blocks.push(std::mem::take(&mut block));
        }
        marker = this;
        if !this.is_empty() {
            let rest = &line[3..];
            block.push(rest.strip_prefix(' ').unwrap_or(rest).trim_end().to_owned());
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    blocks
}

/// The paragraphs of Markdown text: code blocks, tables, link targets and images dropped, wrapped lines joined, links reduced
/// to their text.
pub fn markdown_paragraphs(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut fence: Option<char> = None;
    let mut flush = |current: &mut String| {
        let p = clean(current);
        current.clear();
        if !p.is_empty() {
            out.push(p);
        }
    };
    for line in lines {
        let trimmed = line.trim();
        let tick = ['`', '~']
            .into_iter()
            .find(|c| trimmed.starts_with(&c.to_string().repeat(3)));
        match (fence, tick) {
            (Some(open), Some(t)) if open == t => {
                fence = None;
                continue;
            }
            (Some(_), _) => continue,
            (None, Some(t)) => {
                flush(&mut current);
                fence = Some(t);
                continue;
            }
            _ => {}
        }
        let indented = line.starts_with("    ") || line.starts_with('\t');
        if trimmed.is_empty() || (indented && current.is_empty()) || is_markup(trimmed) {
            flush(&mut current);
        } else if trimmed.starts_with('#') {
            flush(&mut current);
            current.push_str(trimmed);
            flush(&mut current);
        } else {
            if is_list_item(trimmed) {
                flush(&mut current);
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(trimmed);
        }
    }
    flush(&mut current);
    out
}

fn is_markup(line: &str) -> bool {
    let link_target =
        line.starts_with('[') && line.find("]:").is_some_and(|i| !line[..i].contains("]("));
    link_target
        || line.starts_with('|')
        || line.starts_with('<')
        || line.starts_with("![")
        || line.starts_with("[![")
        || line.chars().all(|c| "-=*_+ ".contains(c))
}

fn is_list_item(line: &str) -> bool {
    let after_digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    ["- ", "* ", "+ "].iter().any(|m| line.starts_with(m))
        || (after_digits.len() < line.len()
            && (after_digits.starts_with(". ") || after_digits.starts_with(") ")))
}

/// Reduces links `[text](target)`, `[text][ref]`, `[text]` to their text and collapses white space.
fn clean(p: &str) -> String {
    let mut out = String::with_capacity(p.len());
    let chars: Vec<char> = p.chars().collect();
    let mut i = 0;
    let mut code = false;
    while i < chars.len() {
        let c = chars[i];
        if c == '`' {
            code = !code;
        }
        if !code
            && c == '['
            && let Some(close) = closing(&chars, i, '[', ']')
        {
            out.push_str(&clean(&chars[i + 1..close].iter().collect::<String>()));
            i = close + 1;
            let target = match chars.get(i) {
                Some('(') => closing(&chars, i, '(', ')'),
                Some('[') => closing(&chars, i, '[', ']'),
                _ => None,
            };
            i = target.map_or(i, |e| e + 1);
            continue;
        }
        if c.is_whitespace() {
            if !out.ends_with(' ') && !out.is_empty() {
                out.push(' ');
            }
        } else {
            out.push(c);
        }
        i += 1;
    }
    out.trim_end().to_owned()
}

fn closing(chars: &[char], start: usize, open: char, close: char) -> Option<usize> {
    let mut depth = 0usize;
    for (i, &c) in chars.iter().enumerate().skip(start) {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}

/// Turns a rustdoc source page back into source text: markup and line numbers removed, entities decoded.
pub fn strip_source_page(page: &str) -> String {
    let body = page
        .find("<pre class=\"rust\">")
        .map_or(page, |i| &page[i..]);
    let body = body.find("</pre>").map_or(body, |i| &body[..i]);
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(i) = rest.find('<') {
        out.push_str(&rest[..i]);
        let tag_end = rest[i..].find('>').map_or(rest.len(), |e| i + e + 1);
        let tag = &rest[i..tag_end];
        rest = &rest[tag_end..];
        if tag.contains("data-nosnippet") {
            rest = rest.find("</a>").map_or("", |e| &rest[e + 4..]);
        }
    }
    out.push_str(rest);
    decode_entities(&out)
}

/// The paragraphs and list items of a page's `<main>`.
pub fn html_paragraphs(page: &str) -> Vec<String> {
    let Some(start) = page.find("<main") else {
        return Vec::new();
    };
    let body = &page[start..];
    let body = body.find("</main>").map_or(body, |i| &body[..i]);
    let (mut out, mut current, mut inside, mut skip) =
        (Vec::new(), String::new(), 0i32, None::<String>);
    let mut rest = body;
    let mut flush = |current: &mut String| {
        let p = decode_entities(current)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        current.clear();
        if !p.is_empty() {
            out.push(p);
        }
    };
    while let Some(i) = rest.find('<') {
        if inside > 0 && skip.is_none() {
            current.push_str(&rest[..i]);
        }
        let tag_end = rest[i..].find('>').map_or(rest.len(), |e| i + e + 1);
        let tag = rest[i..tag_end].trim_matches(['<', '>']);
        rest = &rest[tag_end..];
        let closes = tag.starts_with('/');
        let name = tag
            .trim_start_matches('/')
            .split(|c: char| c.is_whitespace() || c == '/')
            .next()
            .unwrap_or("")
            .to_ascii_lowercase();
        if let Some(s) = &skip {
            if closes && *s == name {
                skip = None;
            }
            continue;
        }
        match (name.as_str(), closes) {
            ("pre" | "script" | "style" | "nav" | "table" | "svg", false) => {
                flush(&mut current);
                skip = Some(name);
            }
            ("p" | "li", false) => {
                flush(&mut current);
                inside += 1;
            }
            ("p" | "li", true) => {
                flush(&mut current);
                inside = (inside - 1).max(0);
            }
            ("code", _) if inside > 0 => current.push('`'),
            _ => {}
        }
    }
    flush(&mut current);
    out
}

fn decode_entities(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut rest = s;
    while let Some(i) = rest.find('&') {
        out.push_str(&rest[..i]);
        rest = &rest[i..];
        let end = rest
            .char_indices()
            .take(10)
            .find(|&(_, c)| c == ';')
            .map(|(e, _)| e);
        let decoded = end.and_then(|e| match &rest[1..e] {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some(' '),
            n => {
                let n = n.strip_prefix('#')?;
                let code = n
                    .strip_prefix(['x', 'X'])
                    .map_or_else(|| n.parse().ok(), |h| u32::from_str_radix(h, 16).ok())?;
                char::from_u32(code)
            }
        });
        if let (Some(c), Some(e)) = (decoded, end) {
            out.push(c);
            rest = &rest[e + 1..];
        } else {
            out.push('&');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    // Typographic quotes and dashes as ASCII, so that they cost one token each.
    out.replace(['’', '‘'], "'")
        .replace(['“', '”'], "\"")
        .replace(['–', '—'], "-")
        .replace('…', "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_comments_lose_code_links_and_wrapping() {
        let source = "//! Crate page\n//! in two lines.\n\nfn a() {}\n/// Returns the [`Vec`](std::vec::Vec) of\n/// [all parts][parts].\n///\n/// # Examples\n///\n/// ```\n/// let hidden = 1;\n/// ```\n///\n/// [parts]: crate::parts\n/// - first item\n///   goes on\n/// - second item of it\n//// not a doc comment\nfn b() {}\n";
        let docs: Vec<_> = doc_comments(source)
            .iter()
            .map(|b| markdown_paragraphs(b))
            .collect();
        assert_eq!(docs.len(), 2);
        assert_eq!(docs[0], ["Crate page in two lines."]);
        assert_eq!(
            docs[1],
            [
                "Returns the `Vec` of all parts.",
                "# Examples",
                "- first item goes on",
                "- second item of it"
            ]
        );
    }

    #[test]
    fn pages_give_their_paragraphs() {
        let page = "<html><nav><p>menu</p></nav><main><h1>T</h1><p>Use <code>Vec&lt;T&gt;</code>\n for it&#39;s work.</p><pre><code>x</code></pre><ul><li>One &amp; two</li></ul></main><p>foot</p></html>";
        assert_eq!(
            html_paragraphs(page),
            ["Use `Vec<T>` for it's work.", "One & two"]
        );
        let source = "<pre class=\"rust\"><code><a href=#1 id=1 data-nosnippet>1</a><span class=\"doccomment\">/// Returns <b>a</b> &amp; b.\n</span><a href=#2 id=2 data-nosnippet>2</a>fn x() {}</code></pre>";
        assert_eq!(
            doc_comments(&strip_source_page(source)),
            [["Returns a & b."]]
        );
    }
}
