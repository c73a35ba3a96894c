'use strict';
// Many battles of Pokémon Showdown in one process, in lockstep: a line of JSON in, a line of JSON out, nothing in between.
//
//   node host.js <folder of the package pokemon-showdown>
//
// It ends when its input does, so that it never outlives who started it.

const path = require('path');
const {Watcher, choices, makeNumbers, LAYOUT} = require(path.join(__dirname, 'watcher.js'));
const sim = path.join(process.argv[2], 'dist', 'sim');
const {Battle, Dex, Teams, TeamValidator} = require(sim);
const {extractChannelMessages} = require(path.join(sim, 'battle.js'));

const SIDES = ['p1', 'p2'];
const numbers = makeNumbers(Dex);
let format = null, teams = null;
const battles = new Map();

/** The format of this name; its rules are looked at, too. */
function findFormat(name) {
  const found = Dex.formats.get(name);
  if (!found.exists) throw new Error(`unknown format '${name}'`);
  const asked = name.includes('@@@') ? name.split('@@@')[1].split(',').length : 0;
  if (asked !== (found.customRules || []).length) Dex.formats.validate(name); // says which rule is none
  if (found.gameType !== 'doubles') throw new Error(`format '${name}' is ${found.gameType}; only doubles can be played`);
  Dex.formats.getRuleTable(found);
  return found;
}

/** A team as the simulator takes it: each Pokémon called by its species, and no two alike. */
function named(packed) {
  const team = Teams.unpack(packed), taken = new Set();
  for (const set of team) {
    let name = Dex.species.get(set.species || set.name).name;
    set.species = name;
    name = name.slice(0, 16);
    while (taken.has(name)) name = name.slice(0, 16) + ' 2';
    taken.add(set.name = name);
  }
  return team;
}

function open([key, seeds, which]) {
  const told = {p1: '', p2: ''}; // errors
  const battle = new Battle({formatid: format.id, format, seed: 'gen5,' + seeds[0], send(type, data) {
    if (type === 'sideupdate' && data.slice(3).startsWith('|error|')) told[data.slice(0, 2)] = data.slice(10);
  }});
  SIDES.forEach((side, i) => {
    battle.setPlayer(side, which ? {name: side, team: named(teams[which[i]])} : {name: side, seed: 'gen5,' + seeds[i + 1]});
  });
  const one = {battle, told, seen: 0, watchers: SIDES.map(side => new Watcher(side, numbers))};
  battles.set(key, one);
  return one;
}

/**
 * [who won, what each side may choose, what each has been told of, which were asked again] of a battle; of one in which
 * the simulator broke down also its words, and nobody has won.
 */
function report(key, one, again = [false, false]) {
  const {battle, watchers} = one, log = battle.log.slice(one.seen).join('\n');
  one.seen = battle.log.length;
  if (battle.ended) {
    const winner = battle.winner === 'p1' ? 1 : battle.winner === 'p2' ? -1 : 0;
    battle.destroy();
    battles.delete(key);
    return [winner, null, null, again];
  }
  const channels = extractChannelMessages(log, [1, 2]);
  const said = watchers.map((watcher, i) => {
    for (const line of channels[i + 1]) watcher.tell(line);
    const side = battle.sides[i];
    watcher.request = side.activeRequest || watcher.request;
    return side.isChoiceDone() ? null : choices(side.activeRequest);
  });
  return [null, said, watchers.map(watcher => Buffer.from(watcher.observe().buffer).toString('base64')), again];
}

/** Both sides' choices, '' where none is due. What a side could not know to be impossible it is asked again. */
function choose([key, ...chosen]) {
  const one = battles.get(key), again = [false, false];
  SIDES.forEach((side, i) => {
    if (!chosen[i]) return;
    one.told[side] = '';
    if (one.battle.choose(side, chosen[i])) return;
    if (!one.told[side].startsWith('[Unavailable choice]')) {
      throw new Refused(`the simulator refused ${side}'s choice '${chosen[i]}': ${one.told[side]}`);
    }
    again[i] = true;
  });
  return report(key, one, again);
}

class Refused extends Error {}

function chooseOrLose([key, ...chosen]) {
  try {
    return choose([key, ...chosen]);
  } catch (error) {
    if (error instanceof Refused) throw error;
    drop([key]);
    return [0, null, null, [false, false], `the simulator broke down: ${String(error.message || error).split('\n')[0]}`];
  }
}

/** With any question: battles that nobody needs any more. */
function drop(keys) {
  for (const key of keys) {
    battles.get(key)?.battle.destroy();
    battles.delete(key);
  }
}

const OPS = {
  hello() {
    const sizes = {};
    for (const name of ['species', 'moves', 'items', 'abilities', 'types']) sizes[name] = numbers.sizes[name];
    return {sizes, node: process.versions.node};
  },
  start(message) {
    format = findFormat(message.format);
    teams = message.teams;
    if (!teams && !format.team) throw new Error(`format '${message.format}' generates no teams; give it a folder of teams`);
    return {teams: !!format.team};
  },
  /** Battles, each with the choices that were made in it already. */
  open(message) {
    return message.battles.map(([key, seeds, which, made]) => {
      const one = open([key, seeds, which]);
      let now = report(key, one);
      for (const chosen of made) now = choose([key, ...chosen]);
      return now;
    });
  },
  choose(message) { return message.battles.map(chooseOrLose); },
  /** What may be chosen, and what has been told, by all lines and the last request that a server has sent a side. */
  see({side, lines, request}) {
    const watcher = new Watcher(side, numbers);
    for (const line of lines) watcher.tell(line);
    watcher.request = request;
    return [choices(request), Buffer.from(watcher.observe().buffer).toString('base64')];
  },
  /** Of each team in Showdown's text form: packed, and the validator's words, null for none. */
  validate(message) {
    const validator = TeamValidator.get(findFormat(message.format));
    return message.teams.map(text => {
      const team = Teams.import(text);
      return team?.length ? [Teams.pack(team), validator.validateTeam(team)] : [null, ['it has no Pokémon in it']];
    });
  },
  /** Teams generated for random doubles from these seeds, in text form; null where the validator has something to say. */
  generate(message) {
    const validator = TeamValidator.get(findFormat(message.format));
    return message.seeds.map(seed => {
      const team = Teams.generate('gen9randomdoublesbattle', {seed: 'gen5,' + seed});
      for (const set of team) set.level = 50;
      return validator.validateTeam(team) ? null : Teams.export(team);
    });
  },
  /** What is public of the game itself, by the numbers that observations use. */
  dex() {
    const {dex} = numbers, types = dex.types.all(), type = name => numbers.types.get(('' + name).toLowerCase()) || 0;
    const STATS = ['hp', 'atk', 'def', 'spa', 'spd', 'spe'], CATEGORIES = ['Status', 'Physical', 'Special'];
    return {
      species: Dex.species.all().map(each => {
        const {types: of, baseStats} = dex.species.get(each.id);
        return [type(of[0]), type(of[1]), ...STATS.map(stat => baseStats[stat])];
      }),
      moves: Dex.moves.all().map(each => {
        const {type: of, basePower, category, accuracy, target, priority, multihit} = dex.moves.get(each.id);
        const hits = Array.isArray(multihit) ? 3 : multihit || 1;
        return [type(of), basePower * hits, CATEGORIES.indexOf(category), accuracy === true ? 100 : accuracy,
          ['allAdjacent', 'allAdjacentFoes'].includes(target) ? 1 : 0, target === 'allAdjacent' ? 1 : 0, priority];
      }),
      // damage of type i on type j: 0 normal, 1 double, 2 half, 3 none, as the package has it
      chart: types.map(by => types.map(on => on.damageTaken[by.name] || 0)),
      names: {species: Dex.species.all().map(each => each.name), moves: Dex.moves.all().map(each => each.name),
        items: Dex.items.all().map(each => each.name), abilities: Dex.abilities.all().map(each => each.name),
        types: types.map(each => each.name)},
    };
  },
};

require('readline').createInterface({input: process.stdin}).on('line', line => {
  let answer;
  try {
    const message = JSON.parse(line);
    drop(message.drop || []);
    answer = {ok: OPS[message.op](message)};
  } catch (error) {
    answer = {error: String(error.message || error).split('\n')[0]};
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}).on('close', () => process.exit(0));

module.exports = {OPS, battles};
