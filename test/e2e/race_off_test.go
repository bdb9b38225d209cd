//go:build !race

package e2e

// raceEnabled makes the command under test be built as the tests are.
const raceEnabled = false
