package process

func testChildren() []int { return listChildrenSlowly() }
