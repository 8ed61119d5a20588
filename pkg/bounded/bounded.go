// Package bounded keeps a map that remembers things from growing without end.
package bounded

// Put stores a value under a key. Where the map holds most entries and none of them is the key's, any other one is forgotten
// first. It takes no longer than a map does, and the caller holds the map's lock.
//
// Which one is forgotten is left to chance. What fills such a map comes in turns, as phones that poll and logins that repeat
// do: with one of them too many, a cache that drops what was used least recently (LRU) would drop each just before it comes
// again, and none would be remembered. This way most are.
func Put[K comparable, V any](all map[K]V, most int, key K, value V) {
	if _, ok := all[key]; !ok && len(all) >= most {
		for other := range all {
			delete(all, other)
			break
		}
	}
	all[key] = value
}
