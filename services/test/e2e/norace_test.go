//go:build !race

package e2e

// raceEnabled says that these tests look for races, and so does the binary they run.
const raceEnabled = false
