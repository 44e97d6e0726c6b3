//! Windows with a name: `OVER w`, and `OVER (w ROWS 3 PRECEDING)`, which goes on from it.
//!
//! DataFusion knows the first in the select list, and passes over the name in the second: its partitions and order would silently be those
//! of no window. So names are replaced in the syntax tree, wherever they stand, by what they mean.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, NamedWindowDefinition, NamedWindowExpr, Query, Select, VisitMut, VisitorMut, WindowSpec, WindowType,
    visit_expressions_mut,
};

/// Replaces all names. One that is not defined stays, for the planner to say so.
pub(super) fn replace_named_windows(query: &mut Query) {
    let _continued = VisitMut::visit(query, &mut Selects);
}

struct Selects;

impl VisitorMut for Selects {
    type Break = ();

    /// Those of subqueries come first: names are not seen from within them.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let named = std::mem::take(&mut select.named_window);
        let _continued = visit_expressions_mut(&mut select.projection, |expr| replace(expr, &named));
        let _continued = visit_expressions_mut(&mut select.qualify, |expr| replace(expr, &named));
        select.named_window = named;
        ControlFlow::Continue(())
    }
}

fn replace(expr: &mut Expr, named: &[NamedWindowDefinition]) -> ControlFlow<()> {
    if let Expr::Function(function) = expr
        && let Some(over) = &mut function.over
    {
        let resolved = match over {
            WindowType::NamedWindow(name) => definition(&name.value, named, named.len()),
            WindowType::WindowSpec(spec) => resolve(spec, named, named.len()),
        };
        match (resolved, &*over) {
            (Some(spec), _) => *over = WindowType::WindowSpec(spec),
            (None, WindowType::WindowSpec(WindowSpec { window_name: Some(name), .. })) => {
                *over = WindowType::NamedWindow(name.clone());
            }
            (None, _) => {}
        }
    }
    ControlFlow::Continue(())
}

/// What a name stands for; `depth` ends a circle of names.
fn definition(name: &str, named: &[NamedWindowDefinition], depth: usize) -> Option<WindowSpec> {
    let NamedWindowDefinition(_, meaning) = named.iter().find(|of| of.0.value.eq_ignore_ascii_case(name))?;
    let depth = depth.checked_sub(1)?;
    match meaning {
        NamedWindowExpr::NamedWindow(other) => definition(&other.value, named, depth),
        NamedWindowExpr::WindowSpec(spec) => resolve(spec, named, depth),
    }
}

/// A specification without the name that it goes on from.
fn resolve(spec: &WindowSpec, named: &[NamedWindowDefinition], depth: usize) -> Option<WindowSpec> {
    let Some(name) = &spec.window_name else { return Some(spec.clone()) };
    let base = definition(&name.value, named, depth)?;
    let or_base = |own: &[_], of_base: Vec<_>| if own.is_empty() { of_base } else { own.to_vec() };
    Some(WindowSpec {
        window_name: None,
        partition_by: or_base(&spec.partition_by, base.partition_by),
        order_by: if spec.order_by.is_empty() { base.order_by } else { spec.order_by.clone() },
        window_frame: spec.window_frame.clone().or(base.window_frame),
    })
}
