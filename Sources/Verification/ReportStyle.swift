/// The style sheet of HTML reports.
let reportStyle = """
    :root {
      color-scheme: light dark;
      --text: #1c2024; --muted: #60646c; --ground: #fcfcfd; --line: #d9d9e0; --pass: #18794e; --fail: #cd2b31; --open: #946800;
      --a: #0b68cb; --b: #d9480f; --c: #2b8a3e; --d: #9c36b5;
    }
    @media (prefers-color-scheme: dark) {
      :root {
        --text: #edeef0; --muted: #b0b4ba; --ground: #111113; --line: #393a40; --pass: #4cc38a; --fail: #ff8b8f; --open: #ffca16;
        --a: #70b8ff; --b: #ff9e5e; --c: #71d083; --d: #d19dff;
      }
    }
    * { box-sizing: border-box; }
    body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
    main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
    header { border-left: 6px solid var(--open); padding: .2rem 0 .2rem 1.2rem; margin-bottom: 2rem; }
    header.pass { border-color: var(--pass); }
    header.fail { border-color: var(--fail); }
    header .verdict { font-size: 1.6rem; font-weight: 700; margin: 0; }
    header.pass .verdict, td.pass { color: var(--pass); }
    header.fail .verdict, td.fail { color: var(--fail); }
    td.unjudged { color: var(--open); }
    h1 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
    h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
    summary h2 { display: inline; }
    section { margin: 0 0 2.2rem; }
    .facts, figcaption, small { color: var(--muted); }
    .scroll { overflow-x: auto; }
    table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; width: 100%; }
    th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
    thead th { color: var(--muted); font-weight: 500; white-space: nowrap; }
    th.number { text-align: right; }
    td.number { text-align: right; white-space: nowrap; }
    td.use, td.shape { white-space: nowrap; }
    td.fail { min-width: 14rem; }
    .bar {
      display: inline-block; width: 4rem; height: .5rem; background: var(--line); border-radius: .25rem; overflow: hidden;
      vertical-align: middle;
    }
    .bar i { display: block; height: 100%; background: var(--a); }
    td.fail ~ .use i { background: var(--fail); }
    figure { margin: 0; }
    .plot { width: 100%; height: auto; }
    .plot text { font-size: 12px; fill: var(--muted); }
    .plot .tick { font-size: 10px; }
    .plot .grid { stroke: var(--line); fill: none; }
    .plot .curve { fill: none; stroke-width: 2; }
    .plot .curve.c0 { stroke: var(--a); }
    .plot .curve.c1 { stroke: var(--b); }
    .plot .curve.c2 { stroke: var(--c); }
    .plot .curve.c3 { stroke: var(--d); }
    .plot circle.c0, .plot rect.c0, .plot text.label.c0 { fill: var(--a); }
    .plot circle.c1, .plot text.label.c1 { fill: var(--b); }
    .plot circle.c2, .plot text.label.c2 { fill: var(--c); }
    .plot circle.c3, .plot text.label.c3 { fill: var(--d); }
    .pictures { margin-bottom: 1.4rem; }
    .panels { display: flex; flex-wrap: wrap; gap: .8rem; }
    .panel { display: block; width: 11rem; }
    .panel svg { width: 100%; display: block; border-radius: 4px; }
    .panel image { image-rendering: auto; }
    .panel .flip { stroke: #ff2d55; stroke-width: .12; }
    dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }
    dt { color: var(--muted); }
    dd { margin: 0; overflow-wrap: anywhere; }
    @media print {
      body { font-size: 11px; }
      main { max-width: none; padding: 0; }
      section { break-inside: avoid; }
      details > *, details::details-content { display: block; content-visibility: visible; }
    }
    """
