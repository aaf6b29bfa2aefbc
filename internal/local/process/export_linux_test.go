package process

func testChildren() []int { return listChildrenSlowly() }

func exists(pid int) bool { return len(statFields(pid)) > 0 && !isZombie(pid) }
