'use strict';
// What one side has been told of a battle, as a row of integers, and what it may choose.
//
// A Watcher is fed the lines of its side's channel and its side's requests, and nothing else: it never sees the battle.
// The rows are laid out in layout.json, which Python reads, too.

const path = require('path');
const LAYOUT = require(path.join(__dirname, 'layout.json'));

const STATUS = ['', 'brn', 'par', 'slp', 'frz', 'psn', 'tox', 'fnt'];
const BOOSTS = ['atk', 'def', 'spa', 'spd', 'spe', 'accuracy', 'evasion'];
const STATS = ['atk', 'def', 'spa', 'spd', 'spe'];
const WEATHER = ['', 'sunnyday', 'raindance', 'sandstorm', 'snowscape', 'snow', 'hail', 'desolateland', 'primordialsea',
  'deltastream'];
const TERRAIN = ['', 'electricterrain', 'grassyterrain', 'mistyterrain', 'psychicterrain'];
const ROOMS = ['trickroom', 'gravity', 'magicroom', 'wonderroom'];
const SIDE = LAYOUT.side_conditions;
const VOLATILES = LAYOUT.volatiles;
const STALLING = new Set(['protect', 'detect', 'endure', 'spikyshield', 'kingsshield', 'banefulbunker', 'silktrap',
  'burningbulwark', 'obstruct', 'maxguard', 'wideguard', 'quickguard']);
const [UNSEEN, RESERVE, FIRST, SECOND] = [1, 2, 3, 4]; // places of a Pokémon; 0: there is none
const PASS = LAYOUT.pass, SWITCH = LAYOUT.switch;

/** Numbers from 1 for everything that has a name; 0: not known. Items have one more: known to hold none. */
function makeNumbers(Dex) {
  const dex = Dex.mod('gen9'), found = {dex, sizes: {}};
  for (const kind of ['species', 'moves', 'items', 'abilities', 'types']) {
    const all = (kind === 'types' ? dex : Dex)[kind].all();
    found[kind] = new Map(all.map((entry, i) => [entry.id, i + 1]));
    found.sizes[kind] = all.length;
  }
  return found;
}

const toID = text => ('' + (text ?? '')).toLowerCase().replace(/[^a-z0-9]+/g, '');
/** 'ability: Rough Skin' -> ['ability', 'roughskin']; a bare name has kind ''. */
function effect(text) {
  const at = (text || '').indexOf(':');
  return at < 0 ? ['', toID(text)] : [toID(text.slice(0, at)), toID(text.slice(at + 1))];
}
const fresh = () => ({mon: null, boosts: [0, 0, 0, 0, 0, 0, 0], last: 0, turns: 0, types: [0, 0], stalled: 0,
  volatiles: new Set(), before: null});

class Watcher {
  constructor(side, numbers) {
    this.me = side; // 'p1' or 'p2'
    this.numbers = numbers;
    this.foes = []; // in the order of the preview
    this.slots = {}; // 'p1a' and so on
    for (const who of ['p1', 'p2']) for (const place of ['a', 'b']) this.slots[who + place] = fresh();
    this.sides = {p1: {}, p2: {}}; // condition -> layers or the turn it began
    this.tera = {p1: 0, p2: 0};
    this.fainted = {p1: 0, p2: 0};
    this.weather = 0; this.weatherSince = 0; this.terrain = 0; this.terrainSince = 0; this.rooms = {};
    this.turn = 0;
    this.request = null;
  }

  num(kind, name) { return this.numbers[kind].get(toID(name)) || 0; }
  get none() { return this.numbers.sizes.items + 1; }

  // ---- what the log says

  tell(line) {
    if (line[0] !== '|') return;
    const parts = line.slice(1).split('|'), args = [], named = {};
    for (const part of parts.slice(1)) {
      const found = /^\[(\w+)\] ?(.*)$/.exec(part);
      if (found) named[found[1]] = found[2] || 'true';
      else args.push(part);
    }
    const how = this['on_' + parts[0].replace('-', '_')];
    if (how) how.call(this, args, named);
    if (named.from) this.revealCause(parts[0], args[0], named);
  }

  base(details) {
    const species = this.numbers.dex.species.get(details.split(',')[0]);
    return toID(species.baseSpecies || species.name);
  }

  slot(ident) { return this.slots[(ident || '').slice(0, 3)]; }
  isFoe(ident) { return (ident || '').slice(0, 2) !== this.me; }

  /** The foe's Pokémon of this ident, 'p2a: Name' or 'p2: Name'; null for one of my own: requests tell those. */
  foe(ident, details) {
    if (!ident || !this.isFoe(ident)) return null;
    const name = ident.slice(ident.indexOf(':') + 2);
    let mon = this.foes.find(each => each.name === name);
    if (!mon && details) {
      const base = this.base(details);
      mon = this.foes.find(each => !each.name && each.base === base);
      if (!mon) this.foes.push(mon = this.newFoe(details));
      mon.name = name;
    }
    return mon || null;
  }

  newFoe(details) {
    return {name: '', base: this.base(details), species: this.num('species', details.split(',')[0]), place: UNSEEN,
      hp: 1000, status: 0, ability: 0, item: 0, tera: 0, terastallized: 0, level: this.level(details), moves: []};
  }

  level(details) { const found = /, L(\d+)/.exec(details); return found ? +found[1] : 100; }

  condition(ident, text) {
    const mon = this.foe(ident);
    if (!mon || !text) return;
    const [hp, status] = text.split(' '), [now, of] = hp.split('/');
    mon.hp = of ? Math.max(+now > 0 ? 1 : 0, Math.round(1000 * now / of)) : 0;
    mon.status = Math.max(STATUS.indexOf(status || ''), 0);
  }

  on_poke([who, details]) { if (who !== this.me) this.foes.push(this.newFoe(details)); }

  on_switch([ident, details, condition], named) {
    const slot = this.slots[ident.slice(0, 3)], gone = slot.mon, kept = fresh();
    if (gone && gone.place >= FIRST) gone.place = RESERVE;
    if (named.from && toID(named.from) === 'batonpass') {
      kept.boosts = slot.boosts;
      for (const each of ['substitute', 'leechseed', 'confusion', 'perish']) {
        if (slot.volatiles.has(each)) kept.volatiles.add(each);
      }
    }
    const mon = this.foe(ident, details);
    Object.assign(slot, kept, {mon});
    if (mon) {
      slot.before = {...mon, moves: [...mon.moves]};
      mon.species = this.num('species', details.split(',')[0]) || mon.species;
      mon.place = ident[2] === 'a' ? FIRST : SECOND;
      mon.level = this.level(details);
      this.condition(ident, condition);
    }
  }
  on_drag(args, named) { this.on_switch(args, named); }

  /** An illusion ends: what it has shown since it came in was somebody else's. */
  on_replace([ident, details]) {
    const slot = this.slot(ident), seemed = slot.mon;
    const mon = this.foe(ident, details);
    if (!mon || mon === seemed) { slot.mon = mon; return; }
    if (seemed && slot.before) {
      const shown = seemed.moves.filter(move => !slot.before.moves.includes(move));
      Object.assign(mon, {hp: seemed.hp, status: seemed.status, place: seemed.place,
        moves: [...new Set([...mon.moves, ...shown])]});
      Object.assign(seemed, slot.before);
      if (seemed.place >= FIRST) seemed.place = RESERVE;
    }
    slot.mon = mon;
  }

  on_swap([ident]) {
    const who = ident.slice(0, 2), a = this.slots[who + 'a'], b = this.slots[who + 'b'];
    this.slots[who + 'a'] = b; this.slots[who + 'b'] = a;
    if (b.mon) b.mon.place = FIRST;
    if (a.mon) a.mon.place = SECOND;
  }

  on_detailschange([ident, details]) {
    const mon = this.foe(ident);
    if (mon) mon.species = this.num('species', details.split(',')[0]) || mon.species;
  }
  on__formechange([ident, species]) { this.on_detailschange([ident, species]); }

  on_move([ident, name], named) {
    const slot = this.slot(ident), id = toID(name), move = this.num('moves', name);
    if (!slot) return;
    slot.last = move;
    slot.stalled = STALLING.has(id) && named.still !== 'true' ? 1 : 0;
    const own = !named.from || toID(named.from) === 'lockedmove';
    if (own && id !== 'struggle' && !slot.volatiles.has('transform')) this.revealMove(ident, move);
  }

  revealMove(ident, move) {
    const mon = this.foe(ident);
    if (mon && move && !mon.moves.includes(move) && mon.moves.length < 4) mon.moves.push(move);
  }

  revealCause(what, ident, named) {
    const [kind, id] = effect(named.from);
    if (kind !== 'ability' && kind !== 'item') return;
    const own = what === '-heal' || ['magician', 'pickpocket', 'trace'].includes(id);
    const mon = this.foe(own ? ident : named.of || ident);
    if (!mon) return;
    if (kind === 'ability') mon.ability = this.numbers.abilities.get(id) || mon.ability;
    else if (what !== '-enditem' && mon.item !== this.none) mon.item = this.numbers.items.get(id) || mon.item;
  }

  on__ability([ident, name]) { const mon = this.foe(ident); if (mon) mon.ability = this.num('abilities', name); }
  on__activate([ident, what]) {
    const [kind, id] = effect(what), mon = this.foe(ident);
    if (mon && kind === 'ability') mon.ability = this.numbers.abilities.get(id) || mon.ability;
    if (mon && kind === 'item') mon.item = this.numbers.items.get(id) || mon.item;
  }
  on_cant([ident, why]) { this.on__activate([ident, why]); }
  on__item([ident, name]) { const mon = this.foe(ident); if (mon) mon.item = this.num('items', name); }
  on__enditem([ident]) { const mon = this.foe(ident); if (mon) mon.item = this.none; }

  on__terastallize([ident, type]) {
    const who = ident.slice(0, 2), mon = this.foe(ident);
    this.tera[who] = 1;
    if (mon) { mon.tera = this.num('types', type); mon.terastallized = 1; }
  }
  on__transform([ident]) { this.slot(ident)?.volatiles.add('transform'); }

  on__damage([ident, condition]) { this.condition(ident, condition); }
  on__heal([ident, condition]) { this.condition(ident, condition); }
  on__sethp([ident, condition]) { this.condition(ident, condition); }
  on_faint([ident]) {
    this.fainted[ident.slice(0, 2)]++;
    this.condition(ident, '0 fnt');
    const slot = this.slot(ident);
    if (slot) Object.assign(slot, fresh(), {mon: slot.mon});
  }
  on__status([ident, status]) { const mon = this.foe(ident); if (mon) mon.status = Math.max(STATUS.indexOf(status), 0); }
  on__curestatus([ident]) { const mon = this.foe(ident); if (mon && mon.hp) mon.status = 0; }
  on__cureteam([ident]) { if (this.isFoe(ident)) for (const mon of this.foes) if (mon.hp) mon.status = 0; }

  boost(ident, stat, change) {
    const slot = this.slot(ident), i = BOOSTS.indexOf(stat);
    if (slot && i >= 0) slot.boosts[i] = Math.min(Math.max(change(slot.boosts[i]), -6), 6);
  }
  on__boost([ident, stat, by]) { this.boost(ident, stat, now => now + +by); }
  on__unboost([ident, stat, by]) { this.boost(ident, stat, now => now - +by); }
  on__setboost([ident, stat, to]) { this.boost(ident, stat, () => +to); }
  on__invertboost([ident]) { for (const stat of BOOSTS) this.boost(ident, stat, now => -now); }
  on__clearboost([ident]) { for (const stat of BOOSTS) this.boost(ident, stat, () => 0); }
  on__clearpositiveboost([ident]) { for (const stat of BOOSTS) this.boost(ident, stat, now => Math.min(now, 0)); }
  on__clearnegativeboost([ident]) { for (const stat of BOOSTS) this.boost(ident, stat, now => Math.max(now, 0)); }
  on__clearallboost() { for (const slot of Object.values(this.slots)) slot.boosts = [0, 0, 0, 0, 0, 0, 0]; }
  on__copyboost([to, from]) {
    const a = this.slot(to), b = this.slot(from);
    if (a && b) a.boosts = [...b.boosts];
  }
  on__swapboost([one, other, stats]) {
    const a = this.slot(one), b = this.slot(other), which = stats ? stats.split(',').map(each => each.trim()) : BOOSTS;
    if (!a || !b) return;
    for (const stat of which) {
      const i = BOOSTS.indexOf(stat);
      if (i >= 0) [a.boosts[i], b.boosts[i]] = [b.boosts[i], a.boosts[i]];
    }
  }

  on__start([ident, what, more]) {
    const slot = this.slot(ident);
    if (!slot) return;
    let [, id] = effect(what);
    if (id === 'typechange') slot.types = (more || '').split('/').concat('').slice(0, 2).map(t => this.num('types', t));
    if (id === 'typeadd') slot.types[1] = this.num('types', more);
    if (/^perish\d$/.test(id)) id = 'perish';
    slot.volatiles.add(id);
    this.on__activate([ident, what]);
  }
  on__end([ident, what]) {
    const slot = this.slot(ident), [, id] = effect(what);
    if (!slot) return;
    slot.volatiles.delete(id);
    if (id === 'typechange') slot.types = [0, 0];
  }

  on__weather([name], named) {
    const now = Math.max(WEATHER.indexOf(toID(name) === 'none' ? '' : toID(name)), 0);
    if (named.upkeep !== 'true') this.weatherSince = this.turn;
    this.weather = now;
  }
  on__fieldstart([what]) {
    const [, id] = effect(what), terrain = TERRAIN.indexOf(id);
    if (terrain > 0) { this.terrain = terrain; this.terrainSince = this.turn; }
    if (ROOMS.includes(id)) this.rooms[id] = this.turn;
  }
  on__fieldend([what]) {
    const [, id] = effect(what);
    if (TERRAIN.indexOf(id) > 0) this.terrain = 0;
    delete this.rooms[id];
  }
  on__sidestart([ident, what]) {
    const side = this.sides[ident.slice(0, 2)], [, id] = effect(what), i = SIDE.indexOf(id);
    if (i >= 0) side[id] = LAYOUT.layers.includes(id) ? (side[id] || 0) + 1 : this.turn;
  }
  on__sideend([ident, what]) { delete this.sides[ident.slice(0, 2)][effect(what)[1]]; }
  on__swapsideconditions() { [this.sides.p1, this.sides.p2] = [this.sides.p2, this.sides.p1]; }
  on_turn([number]) {
    this.turn = +number;
    for (const slot of Object.values(this.slots)) slot.turns++;
  }

  // ---- what it comes to

  /** [D] Int16Array; the last part, how far the side has come in choosing, is left to Python. */
  observe() {
    const row = new Int16Array(LAYOUT.size), own = this.request?.side.pokemon || [];
    let at = 0;
    const put = (...values) => { for (const value of values) row[at++] = value; };
    const since = turn => turn === undefined ? 0 : Math.min(this.turn - turn, 30) + 1;
    own.slice(0, 6).forEach((mon, i) => {
      at = i * LAYOUT.mon.length;
      const [hp, status] = mon.condition.split(' '), [now, of] = hp.split('/');
      put(this.num('species', mon.details.split(',')[0]), mon.active && !this.request.teamPreview ? FIRST + i : RESERVE,
        of ? Math.max(Math.round(1000 * now / of), 1) : 0, Math.max(STATUS.indexOf(status || ''), 0),
        this.num('abilities', mon.ability || mon.baseAbility), this.num('items', mon.item) || this.none,
        this.num('types', mon.teraType), mon.terastallized ? 1 : 0, this.level(mon.details));
      for (const stat of STATS) put(mon.stats[stat]);
      for (const move of mon.moves.slice(0, 4)) put(this.num('moves', move));
    });
    this.foes.slice(0, 6).forEach((mon, i) => {
      at = (6 + i) * LAYOUT.mon.length;
      put(mon.species, mon.place, mon.hp, mon.status, mon.ability, mon.item, mon.tera, mon.terastallized, mon.level,
        0, 0, 0, 0, 0, ...mon.moves);
    });
    const foe = this.me === 'p1' ? 'p2' : 'p1';
    [this.me + 'a', this.me + 'b', foe + 'a', foe + 'b'].forEach((name, i) => {
      at = 12 * LAYOUT.mon.length + i * (LAYOUT.slot.length + VOLATILES.length);
      const slot = this.slots[name];
      put(...slot.boosts, slot.last, Math.min(slot.turns, 30), ...slot.types, slot.stalled);
      for (const each of VOLATILES) put(slot.volatiles.has(each) ? 1 : 0);
    });
    at = 12 * LAYOUT.mon.length + 4 * (LAYOUT.slot.length + VOLATILES.length);
    put(Math.min(this.turn, 1000), this.weather, this.weather ? since(this.weatherSince) : 0, this.terrain,
      this.terrain ? since(this.terrainSince) : 0, ...ROOMS.map(room => since(this.rooms[room])));
    for (const who of [this.me, foe]) {
      put(this.tera[who], this.fainted[who]);
      for (const id of SIDE) put(LAYOUT.layers.includes(id) ? this.sides[who][id] || 0 : since(this.sides[who][id]));
    }
    return row;
  }
}

// ---- what may be chosen

const AIMED_AT_ANOTHER = [[1, 3, 4], [0, 3, 4]];
const TARGETS = { // of each kind of move that is aimed: by the slot of who makes it, the places in LAYOUT.targets
  normal: AIMED_AT_ANOTHER, any: AIMED_AT_ANOTHER, adjacentFoe: [[3, 4], [3, 4]], adjacentAlly: [[1], [0]],
  adjacentAllyOrSelf: [[0, 1], [0, 1]],
};
const UNAIMED = [2];

/** [kind, legal of the first slot, of the second, passes, picks] of a request; null where nothing is asked. */
function choices(request) {
  if (!request || request.wait) return null;
  const team = request.side.pokemon, fainted = mon => mon.condition.endsWith(' fnt');
  if (request.teamPreview) {
    const picks = Math.min(request.maxChosenTeamSize || team.length, team.length);
    return [1, team.slice(0, 6).map((_, i) => SWITCH + i), [], 0, picks];
  }
  const bench = team.map((mon, i) => i).filter(i => i >= 2 && i < 6 && !fainted(team[i]));
  if (request.forceSwitch) {
    const out = request.forceSwitch.filter(Boolean).length, passes = out - Math.min(out, bench.length);
    const slots = [0, 1].map(slot => {
      if (!request.forceSwitch[slot]) return [PASS];
      const to = team[slot].reviving ? team.map((_, i) => i).filter(i => fainted(team[i])) : bench;
      return to.map(i => SWITCH + i).concat(passes ? [PASS] : []);
    });
    return [3, ...slots, passes, 0];
  }
  const slots = [0, 1].map(slot => {
    const asked = request.active[slot], legal = [];
    if (!asked || fainted(team[slot]) || team[slot].commanding) return [PASS];
    asked.moves.slice(0, 4).forEach((move, m) => {
      if (move.disabled) return;
      const targets = TARGETS[move.target]?.[slot] || UNAIMED;
      for (const tera of asked.canTerastallize ? [0, 1] : [0]) {
        for (const target of targets) legal.push(m * 10 + tera * 5 + target);
      }
    });
    return asked.trapped ? legal : legal.concat(bench.map(i => SWITCH + i));
  });
  return [2, ...slots, 0, 0];
}

module.exports = {Watcher, choices, makeNumbers, LAYOUT};
