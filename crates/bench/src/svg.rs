//! Parts of a picture as SVG (W3C, "Scalable Vector Graphics 1.1"): text, rectangles, circles and
//! lines, no script, no font of its own. What a picture shows is its owner's business. Pure.

use std::fmt::Write as _;

/// Colours: ours, that of others, what is bad, text, faint lines and areas.
pub(crate) const OURS: &str = "#1a7f5a";
pub(crate) const THEIRS: &str = "#8a96a3";
pub(crate) const BAD: &str = "#c0392b";
const INK: &str = "#1f2933";
pub(crate) const FAINT: &str = "#9aa5b1";
pub(crate) const AREA: &str = "#eef0f2";

/// A place, in pixels from the upper left corner; also a width and a height.
pub(crate) type Place = (f64, f64);

/// Begins a picture of this size.
pub(crate) fn begin((width, height): Place) -> String {
    let mut svg = String::new();
    let _fits = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"{INK}\">"
    );
    let _fits = writeln!(
        svg,
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
    );
    svg
}

/// Ends it.
pub(crate) fn end(mut svg: String) -> String {
    svg.push_str("</svg>\n");
    svg
}

#[expect(clippy::cast_precision_loss, reason = "a number of rows")]
pub(crate) const fn f(count: usize) -> f64 {
    count as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub(crate) fn text(svg: &mut String, (x, y): Place, size: &str, words: &str) {
    let words = escaped(words);
    let _fits = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\">{words}</text>"
    );
}

pub(crate) fn rect(svg: &mut String, (x, y): Place, (width, height): Place, fill: &str) {
    let width = width.max(0.0);
    let _fits = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    );
}

pub(crate) fn circle(svg: &mut String, (x, y): Place, radius: f64, fill: &str) {
    let _fits = writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\"/>"
    );
}

/// A line through these places.
pub(crate) fn line(svg: &mut String, places: &[Place], colour: &str) {
    let points: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _fits = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        points.join(" ")
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reads tags as an XML parser would: balanced, quoted, nothing raw in texts; counts them.
    pub(crate) fn check_xml(xml: &str) -> usize {
        let (mut open, mut count, mut rest) = (Vec::new(), 0, xml);
        while let Some((before, after)) = rest.split_once('<') {
            assert!(!before.contains('>'), "raw > in {before:?}");
            let entities = before.split('&').skip(1);
            for entity in entities {
                let name = entity.split_once(';').expect("an entity ends").0;
                assert!(["amp", "lt", "gt", "quot"].contains(&name), "{name}");
            }
            let (tag, after) = after.split_once('>').expect("a tag ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match (tag.strip_prefix('/'), tag.ends_with('/')) {
                (Some(name), _) => assert_eq!(open.pop().as_deref(), Some(name)),
                (None, true) => count += 1,
                (None, false) => {
                    count += 1;
                    open.push(tag.split_whitespace().next().unwrap().to_owned());
                }
            }
            rest = after;
        }
        assert!(
            open.is_empty() && rest.trim().is_empty(),
            "{open:?} {rest:?}"
        );
        count
    }

    #[test]
    fn every_part_is_well_formed() {
        let mut svg = begin((10.0, 10.0));
        text(&mut svg, (1.0, 2.0), "12", "a < b & \"c\" > d");
        rect(&mut svg, (1.0, 1.0), (-3.0, 2.0), OURS);
        circle(&mut svg, (5.0, 5.0), 2.0, BAD);
        line(&mut svg, &[(0.0, 0.0), (3.0, 4.0)], THEIRS);
        assert_eq!(check_xml(&end(svg)), 6);
    }
}
