"""Offline comparison of strategies on labelled images: does adapting alpha help, when, and at what cost?"""
