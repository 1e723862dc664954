"""A delegation DAG as one HTML file that opens without network: drag, zoom, search, and what a node says on a click.

Of many nodes few can be read at a time: whatever is found, linked to or named in the page's address (`#n7`) is gone to.

Nothing of the tokens becomes markup or script: the picture is escaped SVG, the texts are JSON that the script puts in
place as text. The page's own policy forbids it everything but its own style and script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape

from .chain_drawing import Drawing
from .chain_formats import to_svg

_STYLE = """
:root{color-scheme:light dark}
body{margin:0;font:14px system-ui,sans-serif;display:grid;grid-template-rows:auto 1fr;height:100vh}
header{display:flex;flex-wrap:wrap;gap:.8rem;align-items:center;padding:.5rem .9rem;border-bottom:1px solid #8886}
header h1{font-size:1rem;margin:0}
header input{font:inherit;padding:.25rem .5rem;min-width:16rem}
main{display:grid;grid-template-columns:1fr minmax(0,22rem);min-height:0}
#stage{overflow:hidden;background:#fafafa;cursor:grab;touch-action:none}
#stage svg{width:100%;height:100%;display:block}
aside{padding:.8rem;overflow:auto;border-left:1px solid #8886;overflow-wrap:anywhere}
aside p{margin:.3rem 0}
.box{cursor:pointer}
.faint{opacity:.15}
.chosen rect{stroke-width:3}
@media(max-width:50rem){main{grid-template-columns:1fr;grid-template-rows:1fr auto}aside{max-height:35vh}}
"""
_SCRIPT = """
const texts=JSON.parse(document.getElementById('texts').textContent);
const stage=document.getElementById('stage'),svg=stage.querySelector('svg'),said=document.getElementById('said');
const boxes=[...svg.querySelectorAll('.box')],arrows=[...svg.querySelectorAll('.arrow')];
const whole=svg.viewBox.baseVal,view={x:whole.x,y:whole.y,w:whole.width,h:whole.height};
const show=()=>svg.setAttribute('viewBox',[view.x,view.y,view.w,view.h].join(' '));
const scale=()=>Math.max(view.w/stage.clientWidth,view.h/stage.clientHeight);
const first=boxes[0]&&boxes[0].transform.baseVal[0].matrix;
if(first&&scale()>1.5){view.w=stage.clientWidth;view.h=stage.clientHeight;view.y=first.f-view.h/2;show()}
stage.addEventListener('wheel',e=>{e.preventDefault();const f=e.deltaY>0?1.15:1/1.15,r=stage.getBoundingClientRect();
 const px=(e.clientX-r.left)/r.width,py=(e.clientY-r.top)/r.height;
 view.x+=view.w*(1-f)*px;view.y+=view.h*(1-f)*py;view.w*=f;view.h*=f;show()},{passive:false});
let from=null;
stage.addEventListener('pointerdown',e=>{from=[e.clientX,e.clientY]});
stage.addEventListener('pointermove',e=>{if(!from)return;const s=scale();
 view.x-=(e.clientX-from[0])*s;view.y-=(e.clientY-from[1])*s;from=[e.clientX,e.clientY];show()});
addEventListener('pointerup',()=>{from=null});
const at=b=>b.transform.baseVal[0].matrix;
const seen=b=>{const m=at(b),r=b.getBBox();return scale()<=1.5&&m.e>=view.x&&m.f>=view.y&&
 m.e+r.width<=view.x+view.w&&m.f+r.height<=view.y+view.h};
const go=b=>{if(seen(b))return;const m=at(b),r=b.getBBox(),w=stage.clientWidth,h=stage.clientHeight;
 Object.assign(view,{x:m.e+(r.width-w)/2,y:m.f+(r.height-h)/2,w,h});show()};
const near=(id,one,other,seen)=>{arrows.forEach(a=>{if(a.dataset[one]===id&&!seen.has(a.dataset[other])){
 seen.add(a.dataset[other]);near(a.dataset[other],one,other,seen)}});return seen};
const faint=keep=>{boxes.forEach(b=>b.classList.toggle('faint',!!keep&&!keep.has(b.id)));
 arrows.forEach(a=>a.classList.toggle('faint',!!keep&&!(keep.has(a.dataset.from)&&keep.has(a.dataset.to))))};
const choose=box=>{boxes.forEach(b=>b.classList.toggle('chosen',b===box));said.replaceChildren();
 if(!box){faint(null);return}
 texts[box.id].forEach(t=>{const p=document.createElement('p');p.textContent=t;said.append(p)});
 arrows.forEach(a=>a.dataset.to===box.id&&link('from',a.dataset.from));
 arrows.forEach(a=>a.dataset.from===box.id&&link('to',a.dataset.to));
 faint(new Set([box.id,...near(box.id,'from','to',new Set()),...near(box.id,'to','from',new Set())]))};
const link=(word,id)=>{const p=document.createElement('p'),a=document.createElement('a'),b=document.getElementById(id);
 a.href='#'+id;a.textContent=word+' '+b.querySelector('text').textContent;p.append(a);said.append(p);
 a.addEventListener('click',e=>{e.preventDefault();pick(b)})};
const named=()=>{const b=boxes.find(b=>'#'+b.id===location.hash);if(b){choose(b);go(b)}};
const pick=b=>{if(location.hash==='#'+b.id)named();else location.hash=b.id};
addEventListener('hashchange',named);named();
boxes.forEach(b=>{b.tabIndex=0;b.addEventListener('click',e=>{e.stopPropagation();pick(b)});
 b.addEventListener('keydown',e=>{if(e.key==='Enter')pick(b)})});
stage.addEventListener('dblclick',()=>{Object.assign(view,{x:whole.x,y:whole.y,w:whole.width,h:whole.height});choose(null);show()});
const find=document.getElementById('find'),hits=document.getElementById('hits');
let found=[],next=0;
const turn=n=>{next=n;hits.textContent=found.length?n+1+' of '+found.length:find.value?'nothing':'';
 if(found.length)go(found[n])};
find.addEventListener('input',()=>{const q=find.value.toLowerCase();
 found=q?boxes.filter(b=>texts[b.id].join(' ').toLowerCase().includes(q)):[];
 faint(q?new Set(found.map(b=>b.id)):null);turn(0)});
find.addEventListener('keydown',e=>{if(e.key==='Enter'&&found.length)turn((next+(e.shiftKey?found.length-1:1))%found.length)});
"""


def to_html(drawing: Drawing, title: str) -> str:
    """The whole page."""
    texts = json.dumps({box.name: box.lines for box in drawing.boxes}).replace("<", "\\u003c")
    counts = f"{len(drawing.boxes)} nodes, {len(drawing.arrows)} edges"
    policy = f"default-src 'none'; style-src '{_source(_STYLE)}'; script-src '{_source(_SCRIPT)}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<header><h1>{escape(title)}</h1><span>{counts}</span>"
        '<input id="find" type="search" placeholder="Find agent, policy, result, id" aria-label="Find">'
        '<output id="hits" for="find"></output>'
        "<span>Enter for the next one. Drag to move, wheel to zoom, click a node, double-click for all.</span>"
        "</header>\n"
        f'<main><div id="stage">{to_svg(drawing)}</div>'
        '<aside id="said" aria-live="polite">No signature was verified; lictor chain verify does.</aside></main>\n'
        f'<script type="application/json" id="texts">{texts}</script>\n<script>{_SCRIPT}</script></body></html>\n'
    )


def _source(text: str) -> str:
    """A hash source of the Content Security Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
